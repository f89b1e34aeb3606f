"""Compare: the simulation of one network against another network on each engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convkit.compress import graph as graphs
from convkit.compress import metric as metrics
from convkit.compress import parts, simulate
from convkit.compress.errors import ConvkitError
from convkit.runtimes.parity import probe as probes
from convkit.runtimes.parity.difference import Difference
from convkit.runtimes.parity.pair import Pair
from convkit.runtimes.session import Options, Runtime, Session

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.runtimes.parity.probe import Probe

SCHEMA_VERSION = 1
BATCH = 4
"""Samples per run where the network's batch is free; more only leave the caches."""
_BUILT = "tensorrt"
"""Engines that build a free batch as 1."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as the same.

    `relative`: largest difference of a float network's tensor, over its largest magnitude. `sqnr`: dB between outputs
    of quantized networks; `loss`: dB between a float network and its quantized form. `codes`: fraction of integer
    codes equal at a layer given the same inputs; `end_to_end`: the same with each side's own inputs, asked only of
    engines whose arithmetic the simulation is, and of what no layer in float comes before. `metric`: difference of a
    task metric, in its unit; of a quantized network asked of the same only, as elsewhere one code that differs moves
    all that follow.
    """

    relative: float = 1e-4
    sqnr: float = 20.0
    loss: float = 10.0
    codes: float = 0.999
    end_to_end: float = 0.99
    metric: float = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """One number against its limit (None: for information); `layer` is "" for an output or metric."""

    engine: str
    tensor: str
    layer: str
    measure: str
    value: float
    limit: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All checks, in the order of execution, and the first layer of each engine that departs."""

    checks: tuple[Check, ...]
    first_departure: Mapping[str, str | None]
    samples: int
    versions: Mapping[str, str]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON's form."""
        checks = [dataclasses.asdict(check) for check in self.checks]
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "samples": self.samples,
            "versions": dict(self.versions),
            "first_departure": dict(self.first_departure),
            "checks": checks,
        }


@dataclass(slots=True)
class _Side:
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


def compare(
    pair: Pair,
    data: Data,
    engines: Sequence[str],
    tolerance: Tolerance,
    *,
    layers: bool = False,
    metric: Sequence[str] = (),
    options: Options | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Comparison:
    """Run both sides on `data` and check them. Raises ConvkitError where their inputs or outputs do not match."""
    _check_interfaces(pair)
    simulated = pair.simulated()
    names = {graphs.value(node) for node in simulated.graph.graph.nodes}
    drifting = probes.drifting(simulated) if simulate.is_quantized(pair.reference) else frozenset()
    found = probes.find(pair.reference, pair.candidate, pair.path) if layers else []
    found = [p for p in found if p.name in names]
    whole = _whole_batches(pair, data)
    predictions: dict[str, list[np.ndarray]] = {}
    with contextlib.ExitStack() as stack:
        sides = {engine: _open(engine, pair.path, options, drifting, stack) for engine in engines}
        for count, batch in enumerate(whole.batches(size := _batch_size(pair, engines)), 1):
            _run(pair, simulated, found, batch.arrays, sides, predictions)
            progress(min(1.0, count * size / len(whole)))
    checks = [c for name, side in sides.items() for c in _checks(name, side, pair, found, tolerance)]
    quantized = pair.rounded(pair.candidate)
    checks += [c for n in metric for c in _metric_checks(n, sides, predictions, whole, tolerance, quantized=quantized)]
    versions = {engine: _runtime(engine).version() for engine in engines}
    return Comparison(tuple(checks), {name: _first(name, checks) for name in sides}, len(whole), versions)


def _runtime(engine: str) -> Runtime:
    runtime: Runtime = parts.load("runtimes", engine)
    return runtime


def _open(
    engine: str, path: str, options: Options | None, drifting: frozenset[str], stack: contextlib.ExitStack
) -> _Side:
    runtime = _runtime(engine)
    session = runtime.open(path, options or Options())
    stack.callback(session.close)
    return _Side(session, runtime.exact, drifting)


def _check_interfaces(pair: Pair) -> None:
    """Inputs and outputs are paired by position, so their numbers must be equal."""
    for what in ("inputs", "outputs"):
        ours, theirs = (getattr(model, what) for model in (pair.reference, pair.candidate))
        if len(ours) != len(theirs):
            names = [[spec.name for spec in specs] for specs in (ours, theirs)]
            raise ConvkitError(
                f"the {what} do not match: {names[0]} and {names[1]}", hint="give two forms of one network"
            )


def _batch_size(pair: Pair, engines: Sequence[str] = ()) -> int:
    """Samples per run: what either side's file fixes, or engines that are built for one, else BATCH."""
    specs = (*pair.reference.inputs, *pair.candidate.inputs)
    fixed = [spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)]
    if fixed:
        return fixed[0]
    return 1 if any(engine.startswith(_BUILT) for engine in engines) else BATCH


def _whole_batches(pair: Pair, data: Data) -> Data:
    """The samples that fill batches of a fixed size; any number where it is free."""
    specs = (*pair.reference.inputs, *pair.candidate.inputs)
    if all(spec.shape and isinstance(spec.shape[0], str) for spec in specs):
        return data
    size = _batch_size(pair)
    if len(data) < size:
        raise ConvkitError(f"the network takes {size} samples at a time, the data has {len(data)}", hint="give more")
    return data.batch(slice(0, len(data) // size * size)) if len(data) % size else data


def _run(
    pair: Pair,
    simulated: Model,
    found: Sequence[Probe],
    arrays: Mapping[str, np.ndarray],
    sides: Mapping[str, _Side],
    predictions: dict[str, list[np.ndarray]],
) -> None:
    """One batch through the simulation and every engine."""
    inputs = {spec.name: arrays[spec.name] for spec in pair.reference.inputs}
    outputs, own = probes.run(simulated, inputs, frozenset(p.name for p in found))
    _keep(predictions, outputs)
    theirs = dict(zip((spec.name for spec in pair.candidate.inputs), inputs.values(), strict=True))
    for side in sides.values():
        results = dict(zip(outputs, side.session.run(theirs).values(), strict=True))
        _keep(side.predictions, results)
        for name, result in results.items():
            side.outputs.setdefault(name, Difference()).add(outputs[name], result)
        if found:
            _probe(side, simulated, found, inputs, theirs, own)


def _keep(predictions: dict[str, list[np.ndarray]], outputs: Mapping[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        predictions.setdefault(name, []).append(array)


def _probe(
    side: _Side,
    simulated: Model,
    found: Sequence[Probe],
    inputs: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
) -> None:
    """Each layer on the engine's own inputs, and end to end."""
    fetched = side.session.run(theirs, list(dict.fromkeys(p.fetch for p in found)))
    given = {p.name: p.read(fetched[p.fetch]) for p in found}
    _, alone = probes.run(simulated, inputs, frozenset(given), given)
    for p in found:
        side.layers.setdefault(p.name, Difference()).add(alone[p.name], given[p.name])
        if p.kind != probes.FLOAT:
            side.end_to_end.setdefault(p.name, Difference()).add(own[p.name], given[p.name])


def _checks(engine: str, side: _Side, pair: Pair, found: Sequence[Probe], tolerance: Tolerance) -> list[Check]:
    quantized = [pair.rounded(model) for model in (pair.reference, pair.candidate)]
    outputs = []
    for name, difference in side.outputs.items():
        if difference.exact:
            # What quantization changes of a class or an index, the metrics tell.
            least = tolerance.codes if all(quantized) or not any(quantized) else None
            passed = least is None or difference.equal >= least
            outputs.append(Check(engine, name, "", "codes", difference.equal, least, passed))
        elif not any(quantized):
            passed = difference.relative <= tolerance.relative
            outputs.append(Check(engine, name, "", "relative", difference.relative, tolerance.relative, passed))
        else:
            limit = tolerance.sqnr if all(quantized) else tolerance.loss
            outputs.append(Check(engine, name, "", "sqnr", difference.sqnr, limit, difference.sqnr >= limit))
    good = all(check.passed for check in outputs)
    limits = tolerance if pair.lowered is None else dataclasses.replace(tolerance, relative=_BF16)
    return [c for p in found for c in _layer_checks(engine, side, p, limits, outputs_good=good)] + outputs


_BF16 = 2.0**-7
"""Two roundings to bf16 that go apart, over the largest magnitude: how far a layer in such floats may be off."""


def _layer_checks(engine: str, side: _Side, p: Probe, tolerance: Tolerance, *, outputs_good: bool) -> list[Check]:
    """A float network's layers are blamed only for an output that departs: equalization rescales them on purpose."""
    alone = side.layers[p.name]
    if p.kind == probes.FLOAT and alone.exact:
        return [Check(engine, p.name, p.layer, "codes", alone.equal, tolerance.codes, alone.equal >= tolerance.codes)]
    if p.kind == probes.FLOAT:
        passed = alone.relative <= tolerance.relative
        return [Check(engine, p.name, p.layer, "relative", alone.relative, tolerance.relative, passed)]
    whole = side.end_to_end[p.name]
    if p.kind == probes.CODES:
        limit = tolerance.end_to_end if side.exact and p.name not in side.drifting else None
        return [
            Check(engine, p.name, p.layer, "codes", alone.equal, tolerance.codes, alone.equal >= tolerance.codes),
            Check(engine, p.name, p.layer, "end_to_end", whole.equal, limit, limit is None or whole.equal >= limit),
        ]
    limit = None if outputs_good else tolerance.loss
    return [Check(engine, p.name, p.layer, "sqnr", whole.sqnr, limit, limit is None or whole.sqnr >= limit)]


def _metric_checks(
    name: str,
    sides: Mapping[str, _Side],
    predictions: Mapping[str, list[np.ndarray]],
    data: Data,
    tolerance: Tolerance,
    *,
    quantized: bool,
) -> list[Check]:
    """The metric of the simulation less that of each engine; one that compares with a reference has the simulation."""
    import numpy as np

    found = metrics.load(name)
    outputs = {key: np.concatenate(batches) for key, batches in predictions.items()}
    checks = []
    for engine, side in sides.items():
        got = {key: np.concatenate(batches) for key, batches in side.predictions.items()}
        value = metrics.evaluate(name, got, outputs, data.labels)
        own = metrics.evaluate(name, outputs, outputs, data.labels)
        if found.needs == "labels" or (found.unit == "dB" and own < metrics.LIMIT_DB):
            gap = abs(value - own)
            same = side.exact and side.drifting.isdisjoint(side.predictions)
            limit = tolerance.metric if same or not quantized else None
            checks.append(Check(engine, name, "", "metric", gap, limit, limit is None or gap <= limit))
        else:
            checks.append(Check(engine, name, "", "metric", value, None, passed=True))
    return checks


def _first(engine: str, checks: Sequence[Check]) -> str | None:
    """The first layer, in execution order, that misses a limit."""
    departed = (c for c in checks if c.engine == engine and c.layer and not c.passed)
    first = next(departed, None)
    return None if first is None else first.layer
