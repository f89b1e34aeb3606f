"""One layer's codes learned by what it reads and should make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import patches, rounding, stored, weights
from convkit.compress.lockstep import Lockstep
from convkit.compress.moments import Moments

_POSITIONS = 8192
"""Output positions of a layer that are looked at, over all samples; at least one of each sample."""
_HELD_BACK = 4
"""Every so manyth sample is not learned from: an output whose error does not fall on them keeps nearest rounding."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Moments of samples that are learned from, and of those held back; the same where there are too few to part."""

    learned: Moments
    held_back: Moments


def held_back(count: int) -> Tensor:
    """Which of `count` samples are not learned from, a mask."""
    return torch.arange(count) % _HELD_BACK == _HELD_BACK - 1


def float_rows(layer: fx.Node, node: fx.Node) -> Tensor:
    """The weight of the float `layer`, as [groups, m, k] of the quantized `node`, float64."""
    module = graphs.module(layer)
    assert module is not None  # noqa: S101 - a call_module node
    assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
    rows = weights.by_output(module, module.weight).flatten(1).double()
    groups = patches.groups(node)
    return rows.reshape(groups, len(rows) // groups, -1)


def moments(node: fx.Node, inputs: list[Tensor], outputs: list[Tensor]) -> Seen:
    """Of `node`, which reads `inputs` and should make `outputs`, each a batch."""
    generator, count = torch.Generator().manual_seed(0), sum(map(len, inputs))
    most = -(-_POSITIONS // count)
    found = patches.joined(
        [patches.of(node, x, y, most, generator) for x, y in zip(inputs, outputs, strict=True)],
    )
    kept = held_back(count)
    learned, other = (Moments.of(patches.of_samples(found, which)) for which in (~kept, kept))
    return Seen(learned, other if other.count else learned)


def learn(held: stored.Weight, weight: Tensor, seen: Seen, run: Lockstep, *, scales: bool = False) -> None:
    """Write the codes and the bias of a layer, and its `scales`; `weight` [groups, m, k] is its float weight."""
    grid, numbers = held.grid(), stored.bias(held.node)
    form = rounding.Form.of(weight, seen.learned, centred=numbers is not None)
    nearest, factors = grid.nearest(weight), torch.ones(weight.shape[:2], dtype=torch.float64)
    fits = scales and held.by_channel
    learned = rounding.fit(weight, grid, form) if fits else (rounding.learn(weight, grid, form), factors)
    rows, factors = _best([(nearest, factors), learned], seen, biased=numbers is not None)
    if held.by_channel:
        held.rescale(factors.flatten())
    held.write(rows)
    if numbers is not None:
        stored.write_bias(numbers, (seen.learned + seen.held_back).bias(rows).flatten())
    for constant in filter(None, (held.numbers, numbers)):
        run.renew(constant)


def _best(tried: Sequence[tuple[Tensor, Tensor]], seen: Seen, *, biased: bool) -> tuple[Tensor, Tensor]:
    """Of rows [groups, m, k] with their factors [groups, m], for each output those that err least elsewhere."""
    (rows, factors), least = tried[0], seen.held_back.error(tried[0][0], seen.learned.bias(tried[0][0]) * biased)
    for other, own in tried[1:]:
        error = seen.held_back.error(other, seen.learned.bias(other) * biased)
        better = error < least
        rows, factors = torch.where(better[..., None], other, rows), torch.where(better, own, factors)
        least = torch.minimum(error, least)
    return rows, factors
