"""Checks: what was seen of an engine beside the simulation, held against tolerances."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convkit.compress import metric as metrics
from convkit.runtimes.parity import probe as probes
from convkit.runtimes.parity.difference import Difference

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.data import Data
    from convkit.runtimes.parity.pair import Pair
    from convkit.runtimes.parity.probe import Probe
    from convkit.runtimes.session import Session


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as the same.

    `relative`: largest difference of a float network's tensor, over its largest magnitude. `sqnr`: dB between outputs
    of quantized networks, and between float codes of a layer, whose sums often lie half way between two of them;
    `loss`: dB between a float network and its quantized form. `codes`: fraction of integer codes equal at a layer given
    the same inputs; `end_to_end`: the same with each side's own inputs, asked only of engines whose arithmetic the
    simulation is, and of what no layer in float comes before. `metric`: difference of a task metric, in its unit; of a
    quantized network asked of the same only, as elsewhere one code that differs moves all that follow.
    """

    relative: float = 1e-4
    sqnr: float = 20.0
    loss: float = 10.0
    codes: float = 0.999
    end_to_end: float = 0.99
    metric: float = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """One number against its limit (None: for information), which is the Tolerance's of the name `tolerance`; `layer`
    is "" for an output or metric."""

    engine: str
    tensor: str
    layer: str
    measure: str
    value: float
    limit: float | None
    tolerance: str
    passed: bool


AT_MOST = ("relative", "metric")
"""Measures of how far off something is; the others are of how near."""


@dataclass(slots=True)
class Side:
    """One engine's session and what was seen of it."""

    session: Session
    exact: bool
    """Whether the simulation's arithmetic is the engine's."""
    drifting: frozenset[str]
    """Tensors that the same arithmetic may make differently, of the last bits of layers in float."""
    outputs: dict[str, Difference] = field(default_factory=dict)
    layers: dict[str, Difference] = field(default_factory=dict)
    end_to_end: dict[str, Difference] = field(default_factory=dict)
    predictions: dict[str, list[np.ndarray]] = field(default_factory=dict)


def of_side(engine: str, side: Side, pair: Pair, found: Sequence[Probe], tolerance: Tolerance) -> list[Check]:
    quantized = [pair.rounded(model) for model in (pair.reference, pair.candidate)]
    outputs = []
    for name, difference in side.outputs.items():
        if difference.exact:
            # What quantization changes of a class or an index, the metrics tell.
            asked = tolerance if all(quantized) or not any(quantized) else None
            outputs.append(_check((engine, name, ""), "codes", difference.equal, asked))
        elif not any(quantized):
            outputs.append(_check((engine, name, ""), "relative", difference.relative, tolerance))
        else:
            held_to = "sqnr" if all(quantized) else "loss"
            outputs.append(_check((engine, name, ""), "sqnr", difference.sqnr, tolerance, held_to))
    good = all(check.passed for check in outputs)
    limits = dataclasses.replace(tolerance, relative=max(tolerance.relative, pair.rounding))
    return [c for p in found for c in _layer_checks(engine, side, p, limits, outputs_good=good)] + outputs


def _layer_checks(engine: str, side: Side, p: Probe, tolerance: Tolerance, *, outputs_good: bool) -> list[Check]:
    """A float network's layers are blamed only for an output that departs: equalization rescales them on purpose."""
    alone, who = side.layers[p.name], (engine, p.name, p.layer)
    if p.kind == probes.FLOAT and alone.exact:
        return [_check(who, "codes", alone.equal, tolerance)]
    if p.kind == probes.FLOAT:
        return [_check(who, "relative", alone.relative, tolerance)]
    whole = side.end_to_end[p.name]
    if p.kind == probes.CODES and not alone.exact:
        return [_check(who, "sqnr", alone.sqnr, tolerance), _check(who, "codes", alone.equal, None)]
    if p.kind == probes.CODES:
        limits = tolerance if side.exact and p.name not in side.drifting else None
        return [_check(who, "codes", alone.equal, tolerance), _check(who, "end_to_end", whole.equal, limits)]
    return [_check(who, "sqnr", whole.sqnr, None if outputs_good else tolerance, "loss")]


def _check(who: tuple[str, str, str], measure: str, value: float, limits: Tolerance | None, held_to: str = "") -> Check:
    """Against the limit of `limits` that is called `held_to`, or as what is measured; against none where there are
    none."""
    name = held_to or measure
    limit: float | None = None if limits is None else getattr(limits, name)
    passed = limit is None or (value <= limit if measure in AT_MOST else value >= limit)
    return Check(*who, measure, value, limit, name, passed)


def of_metric(
    name: str,
    sides: Mapping[str, Side],
    predictions: Mapping[str, list[np.ndarray]],
    data: Data,
    tolerance: Tolerance,
    *,
    quantized: bool,
) -> list[Check]:
    """The metric of the simulation less that of each engine; one that compares with a reference has the simulation."""
    found = metrics.load(name)
    outputs = metrics.joined(predictions)
    checks = []
    for engine, side in sides.items():
        got = metrics.joined(side.predictions)
        value = metrics.evaluate(name, got, outputs, data.labels)
        own = metrics.evaluate(name, outputs, outputs, data.labels)
        if found.needs == "labels" or (found.unit == "dB" and own < metrics.LIMIT_DB):
            same = side.exact and side.drifting.isdisjoint(side.predictions)
            limits = tolerance if same or not quantized else None
            checks.append(_check((engine, name, ""), "metric", abs(value - own), limits))
        else:
            checks.append(_check((engine, name, ""), "metric", value, None))
    return checks
