"""Compare: the simulation of one network against another network on each engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.compress import arrays, parts, simulate
from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.model import InputShape, ModelRef, load
from convkit.runtimes.parity import checks
from convkit.runtimes.parity import probe as probes
from convkit.runtimes.parity.checks import Check, Side, Tolerance
from convkit.runtimes.parity.difference import Difference
from convkit.runtimes.parity.pair import Pair
from convkit.runtimes.session import Options, Runtime

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.runtimes.parity.probe import Probe

SCHEMA_VERSION = 1
BATCH = 4
"""Samples per run where the network's batch is free; more only leave the caches."""


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
        given = dataclasses.replace(options or Options(), batch=_batch_size(pair, engines))
        sides = {engine: _open(engine, pair, given, drifting, stack) for engine in engines}
        for count, batch in enumerate(whole.batches(size := _batch_size(pair, engines)), 1):
            _run(pair, simulated, found, batch.arrays, sides, predictions)
            progress(min(1.0, count * size / len(whole)))
    seen = [c for name, side in sides.items() for c in checks.of_side(name, side, pair, found, tolerance)]
    quantized = pair.rounded(pair.candidate)
    seen += [c for n in metric for c in checks.of_metric(n, sides, predictions, whole, tolerance, quantized=quantized)]
    versions = {engine: _runtime(engine).version() for engine in engines}
    return Comparison(tuple(seen), {name: _first(name, seen) for name in sides}, len(whole), versions)


def _runtime(engine: str) -> Runtime:
    runtime: Runtime = parts.load("runtimes", engine)
    return runtime


def _open(engine: str, pair: Pair, options: Options, drifting: frozenset[str], stack: contextlib.ExitStack) -> Side:
    """B in the engine; one that reads files as convkit does is told the sizes that B was read with."""
    runtime = _runtime(engine)
    if runtime.of_model is None:
        session = runtime.open(pair.path, options)
    else:
        shapes = {spec.name: InputShape(spec.shape, spec.sample) for spec in pair.candidate.inputs}
        session = runtime.of_model(load(ModelRef(pair.path, shapes=shapes)), options)
    stack.callback(session.close)
    return Side(session, runtime.exact, drifting)


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
    fixed = pair.reference.batch or pair.candidate.batch
    if fixed is not None:
        return fixed
    return 1 if any(parts.load("runtimes", engine).builds for engine in engines) else BATCH


def _whole_batches(pair: Pair, data: Data) -> Data:
    """The samples that fill batches of a fixed size; any number where it is free."""
    if pair.reference.batch is None and pair.candidate.batch is None:
        return data
    size = _batch_size(pair)
    if len(data) < size:
        raise ConvkitError(f"the network takes {size} samples at a time, the data has {len(data)}", hint="give more")
    return data.batch(slice(0, len(data) // size * size)) if len(data) % size else data


def _run(
    pair: Pair,
    simulated: Model,
    found: Sequence[Probe],
    samples: Mapping[str, np.ndarray],
    sides: Mapping[str, Side],
    predictions: dict[str, list[np.ndarray]],
) -> None:
    """One batch through the simulation and every engine."""
    inputs = {spec.name: samples[spec.name] for spec in pair.reference.inputs}
    outputs, own = probes.run(simulated, inputs, frozenset(p.name for p in found))
    _keep(predictions, outputs)
    theirs = dict(zip((spec.name for spec in pair.candidate.inputs), inputs.values(), strict=True))
    for side in sides.values():
        made = side.session.run(theirs).values()
        kinds = (spec.dtype for spec in pair.candidate.outputs)
        results = {n: arrays.read(found, kind) for n, found, kind in zip(outputs, made, kinds, strict=True)}
        _keep(side.predictions, results)
        for name, result in results.items():
            side.outputs.setdefault(name, Difference()).add(outputs[name], result)
        if found:
            _probe(side, simulated, found, inputs, theirs, own)


def _keep(predictions: dict[str, list[np.ndarray]], outputs: Mapping[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        predictions.setdefault(name, []).append(array)


def _probe(
    side: Side,
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


def _first(engine: str, checks: Sequence[Check]) -> str | None:
    """The first layer, in execution order, that misses a limit."""
    departed = (c for c in checks if c.engine == engine and c.layer and not c.passed)
    first = next(departed, None)
    return None if first is None else first.layer
