"""Rounding by its effect: on the grid, never worse than nearest, as good as trying all where that can be done."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convkit.compress import format as formats
from convkit.compress import rounding
from convkit.compress.moments import Moments
from convkit.compress.patches import Patches
from convkit.compress.rounding import Form, Grid

FORMATS = ("int2", "int4", "int8", "fp4_e2m1", "fp8_e4m3", "fp8_e5m2", "e3m2")
SEEDS = st.integers(0, 10**6)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_of(name: str, weight: Tensor) -> Grid:
    number = formats.load(name)
    peak = weight.abs().amax(-1, keepdim=True).clamp(min=1e-6)
    return Grid(number, number.parameters(-peak, peak)[0].double())


def moments_of(seed: int, weight: Tensor, positions: int = 200) -> Moments:
    """Inputs whose entries hang together, as those of images do, and what the float weight makes of them."""
    groups, _, k = weight.shape
    x = draw(seed, groups, positions, k) @ draw(seed + 1, groups, k, k) + 1
    return Moments.of(Patches(x.float(), (x @ weight.mT).float()))


def value(square: Tensor, cross: Tensor, weight: Tensor) -> Tensor:
    return ((weight @ square - 2 * cross) * weight).sum(-1)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FORMATS), SEEDS)
def test_neighbours_enclose_and_leave_nothing_between(name: str, seed: int) -> None:
    weight = draw(seed, 2, 3, 20)
    grid = grid_of(name, weight * 0.7)
    below, above = grid.neighbours(weight)
    assert torch.equal(grid.nearest(below), below)
    assert torch.equal(grid.nearest(above), above)
    nearest = grid.nearest(weight)
    assert bool(((nearest == below) | (nearest == above)).all())
    apart = below < above
    assert bool(((below < weight) & (weight < above))[apart].all())
    between = grid.nearest((below + above) / 2)
    assert bool(((between == below) | (between == above)).all())
    beyond = weight.abs() > grid.nearest(torch.full_like(weight, 1e6)).abs()
    assert bool((apart | beyond | (nearest == weight)).all())


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FORMATS), SEEDS, st.integers(1, 3), st.integers(1, 90))
def test_never_worse_than_nearest_and_on_the_grid(name: str, seed: int, groups: int, k: int) -> None:
    weight = draw(seed, groups, 4, k)
    grid, moments = grid_of(name, weight), moments_of(seed + 2, weight)
    square, cross = moments.normal(centred=True)
    square = square + 1e-3 * torch.eye(k, dtype=torch.float64)
    start = grid.nearest(weight)
    learned = rounding.descend(square, cross, start, grid.neighbours(weight))
    assert torch.equal(start, grid.nearest(weight))
    assert torch.equal(grid.nearest(learned), learned)
    before = value(square, cross, start)
    assert bool((value(square, cross, learned) <= before + 1e-9 * before.abs()).all())


def problem(name: str, seed: int, groups: int, k: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Square, cross, nearest rounding and neighbours of a layer with 6 outputs a group."""
    weight = draw(seed, groups, 6, k)
    grid = grid_of(name, weight)
    square, cross = moments_of(seed + 2, weight).normal(centred=True)
    return square + 1e-6 * torch.eye(k, dtype=torch.float64), cross, grid.nearest(weight), grid.neighbours(weight)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["int4", "fp4_e2m1"]), SEEDS, st.integers(1, 8))
def test_no_single_move_is_left_that_helps(name: str, seed: int, k: int) -> None:
    square, cross, start, sides = problem(name, seed, 1, k)
    learned = rounding.descend(square, cross, start, sides)
    got = value(square, cross, learned)
    flips = [torch.where(torch.arange(k) == i, sides[0] + sides[1] - learned, learned) for i in range(k)]
    assert all(bool((value(square, cross, flip) >= got - 1e-9 * got.abs()).all()) for flip in flips)


@pytest.mark.parametrize(("k", "share"), [(3, 0.7), (5, 0.7), (8, 0.7)])
def test_most_of_what_trying_everything_gains(k: int, share: float) -> None:
    """Of the best of all 2^k roundings, over 300 rows that see inputs much alike."""
    square, cross, start, sides = problem("int4", 0, 50, k)
    choices = itertools.product((0, 1), repeat=k)
    everything = (torch.stack([sides[side][..., i] for i, side in enumerate(choice)], -1) for choice in choices)
    best = torch.stack([value(square, cross, candidate) for candidate in everything]).min(0).values
    got, before = (value(square, cross, w) for w in (rounding.descend(square, cross, start, sides), start))
    assert bool((got >= best - 1e-9 * best.abs()).all())
    assert float((before - got).sum()) >= share * float((before - best).sum()) - 1e-9


def test_inputs_that_are_always_zero_leave_nearest_rounding() -> None:
    weight = draw(0, 1, 5, 12)
    x = draw(1, 1, 100, 12)
    x[..., 3:6] = 0
    moments = Moments.of(Patches(x.float(), (x @ weight.mT).float()))
    grid = grid_of("int4", weight)
    learned = rounding.learn(weight, grid, Form.of(weight, moments, centred=True))
    assert torch.equal(learned[..., 3:6], grid.nearest(weight)[..., 3:6])
    silent = Moments.of(Patches(torch.zeros(1, 9, 12), torch.zeros(1, 9, 5)))
    assert torch.equal(rounding.learn(weight, grid, Form.of(weight, silent, centred=False)), grid.nearest(weight))


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_zero_stay_zero(name: str) -> None:
    weight = draw(0, 3, 1, 9)
    weight[1] = 0
    form = Form.of(weight, moments_of(1, weight), centred=True)
    learned = rounding.learn(weight, grid_of(name, weight), form)
    assert not bool(learned[1].any())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("k", [9, 80])
def test_a_scale_of_its_own_never_errs_more(name: str, k: int) -> None:
    """Than the ranges tried: codes and scales that were learned together lie on the grid of the new scales."""
    weight = draw(3, 4, 5, k)
    weight[1, 2] = 0
    grid, form = grid_of(name, weight), Form.of(weight, moments_of(4, weight), centred=True)
    rows, factors = rounding.fit(weight, grid, form)
    assert torch.equal(grid.times(factors).nearest(rows), rows)
    assert not bool(rows[1, 2].any())
    assert factors[1, 2] == 1
    got, fixed = form.error(rows), form.error(rounding.learn(weight, grid, form))
    assert float(got.sum()) < float(fixed.sum())
    assert bool((got <= form.error(grid.nearest(weight)) + 1e-9).all())


def test_the_factor_is_that_of_least_squares() -> None:
    weight = draw(0, 2, 3, 12)
    form = Form.of(weight, moments_of(5, weight), centred=True)
    rows = weight / 1.3
    factor = form.factor(rows)
    assert all(bool((form.error(rows * (factor * other)[..., None]) > form.error(rows * factor[..., None])).all())
               for other in (0.97, 1.03))  # fmt: skip
    assert bool((form.factor(torch.zeros_like(weight)) == 1).all())
