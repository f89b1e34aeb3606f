"""Parallel convolutions merged: one kernel, the same numbers, never more products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convkit.compress import graph as graphs
from convkit.compress.apply import prepare
from convkit.compress.convs.dilated_reparam import BRANCHES, DilatedReparamBlock
from convkit.compress.convs.inception_mean import InceptionBlockV1
from convkit.compress.model import Model, ModelRef, parse_shape
from convkit.compress.sources import factory

METHODS = ("fold_batch_norm", "merge_parallel")


class Sum(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.branches[0](x)
        for branch in self.branches[1:]:
            made = made + branch(x)
        return made


def model(module: nn.Module, shape: str = "x:Nx4x13x10") -> Model:
    return factory.from_module(module.eval(), ModelRef("tests:sum", shapes=dict([parse_shape(shape)])))


def convs(made: Model) -> list[nn.Module]:
    return [graphs.module(node) for node in graphs.computes(made.graph) if graphs.operator(node) == "Conv"]


def largest_error(one: Model, other: Model, shape: tuple[int, ...] = (2, 4, 13, 10)) -> float:
    x = {"x": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    return float((one(x)["output"] - other(x)["output"]).abs().max())


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.tuples(st.sampled_from([5, 7]), st.sampled_from([5, 7])),
    small=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
)
def test_two_become_one(kernel, small, dilation, stride, groups, bias) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    padding = tuple(k // 2 for k in kernel)
    small = tuple(2 * (s // 2) + 1 for s in small)
    inner = tuple(dilation * (s - 1) // 2 for s in small)
    big = nn.Conv2d(4, 4, kernel, stride, padding, groups=groups, bias=bias)
    other = nn.Conv2d(4, 4, small, stride, inner, dilation, groups)
    before = model(Sum(big, other))
    after = prepare(before, METHODS)
    assert [layer.kernel_size for layer in convs(after)] == [kernel]
    assert largest_error(before, after) <= 1e-5


@pytest.mark.parametrize("size", BRANCHES)
def test_a_dilated_reparam_block_becomes_one_convolution(size: int) -> None:
    torch.manual_seed(size)
    block = DilatedReparamBlock(4, size)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
            nn.init.normal_(norm.running_mean)
    before = model(block)
    after = prepare(before, METHODS)
    (merged,) = convs(after)
    assert merged.kernel_size == (size, size)
    assert len(list(graphs.computes(after.graph))) == 1
    assert largest_error(before, after) <= 1e-4


def test_bands_stay_apart() -> None:
    """A row and a column of eleven are 22 products, their square 121."""
    bands = Sum(nn.Conv2d(4, 4, (1, 11), padding=(0, 5)), nn.Conv2d(4, 4, (11, 1), padding=(5, 0)))
    assert len(convs(prepare(model(bands), METHODS))) == 2


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 1, 3, padding=1),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ],
    ids=["groups", "circular", "broadcast", "transposed"],
)
def test_what_is_another_operation_stays(other: nn.Module) -> None:
    before = model(Sum(nn.Conv2d(4, 4, 5, padding=2), other))
    after = prepare(before, METHODS)
    assert len(list(graphs.computes(after.graph))) == len(list(graphs.computes(before.graph)))
    assert largest_error(before, after) <= 1e-6


def test_a_branch_that_is_read_elsewhere_stays() -> None:
    class Twice(Sum):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, other = (branch(x) for branch in self.branches)
            return (one + other) * one

    before = model(Twice(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)))
    assert len(convs(prepare(before, METHODS))) == 2


@pytest.mark.parametrize("count", [2, 6])
def test_the_mean_of_a_stack_becomes_one_convolution(count: int) -> None:
    torch.manual_seed(count)
    before = model(InceptionBlockV1(4, 3, count))
    after = prepare(before, METHODS)
    assert [layer.kernel_size for layer in convs(after)] == [(2 * count - 1,) * 2]
    assert len(list(graphs.computes(after.graph))) == 1
    assert largest_error(before, after) <= 1e-5
