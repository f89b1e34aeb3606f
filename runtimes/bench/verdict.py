"""The Verdict: what a Measurement says about gates.

A gate fails only when the whole 95 % interval lies on the wrong side of the limit, and passes when the whole interval
lies on the right side. In between it is *undecided*: the run was too short or the machine too noisy to tell. That is
no failure, because a gate that fails by chance is soon switched off; `strict` counts it as one. Sizes, memory, load
time and metrics on the given data are taken as they are, without an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convkit.compress import metric
from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench.estimate import QUANTILES, TAIL, Interval, point
from convkit.runtimes.bench.gate import TIMES, Gate
from convkit.runtimes.bench.measure import Measurement, Result

State = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One gate on one candidate; `measured` is in the gate's own unit (ratio, seconds, bytes, points)."""

    gate: Gate
    candidate: str
    measured: Interval
    state: State


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every gate on every candidate but the baseline (on the baseline where it is alone)."""

    judgements: tuple[Judgement, ...]
    strict: bool = False

    @property
    def failed(self) -> bool:
        return any(self.fails(judgement) for judgement in self.judgements)

    def fails(self, judgement: Judgement) -> bool:
        """Whether it makes the verdict fail."""
        return judgement.state == "fail" or (self.strict and judgement.state == "undecided")


def judge(measurement: Measurement, gates: Sequence[Gate], *, strict: bool = False) -> Verdict:
    """Hold every gate against every candidate; raises ConvkitError where a gate asks for what was not measured."""
    check(gates, len(measurement.results))
    return Verdict(
        tuple(_judgement(gate, result, measurement) for result in _judged(measurement) for gate in gates), strict
    )


def check(gates: Sequence[Gate], candidates: int) -> None:
    """Raise the user's error for gates that compare where there is nothing to compare with."""
    for gate in gates:
        if gate.kind != "absolute" and candidates == 1:
            raise ConvkitError(f"{gate.text!r} needs a baseline", hint="give a second candidate to compare with")
        if gate.kind == "difference":
            found = metric.load(gate.quantity)
            if found.needs == "reference" and found.unit != "dB":
                raise _of_no_difference(gate, "")


def metrics_of(gates: Sequence[Gate]) -> tuple[str, ...]:
    """Names of the metrics that gates need, each once; an unknown name is the user's error."""
    names = tuple(dict.fromkeys(gate.quantity for gate in gates if gate.is_metric))
    for name in names:
        metric.load(name)
    return names


def _judged(measurement: Measurement) -> Sequence[Result]:
    others = [result for result in measurement.results if result.name != measurement.baseline]
    return others or measurement.results


def _judgement(gate: Gate, result: Result, measurement: Measurement) -> Judgement:
    base = measurement[measurement.baseline]
    measured = _metric(gate, result, base) if gate.is_metric else _figure(gate, result, base)
    state = _state(gate, measured)
    if state == "pass" and not _seen(gate, result):
        state = "undecided"
    return Judgement(gate, result.name, measured, state)


def _seen(gate: Gate, result: Result) -> bool:
    """Whether so many calls show a quantile: the longest of a few is no limit to the slowest hundredth of all.

    Of p99 that takes 368 calls, of p90 36: fewer stay below it by chance, all of them.
    """
    share = {name: QUANTILES[name] for name in ("p90", "p99")}.get(gate.quantity)
    return share is None or gate.sense == ">=" or share**result.calls <= TAIL


def _state(gate: Gate, measured: Interval) -> State:
    """Equality is on the right side."""
    at_most = gate.sense == "<="
    if measured.high <= gate.limit if at_most else measured.low >= gate.limit:
        return "pass"
    if measured.low > gate.limit if at_most else measured.high < gate.limit:
        return "fail"
    return "undecided"


def _metric(gate: Gate, result: Result, base: Result) -> Interval:
    if gate.quantity not in result.metrics:
        raise ConvkitError(f"{gate.text!r} was not measured", hint="give --data, and the metric's name")
    value = result.metrics[gate.quantity]
    if gate.kind == "difference" and not _by_labels(gate.quantity, base):
        raise _of_no_difference(gate, ", or give labels that are the outputs wanted")
    if gate.kind == "difference":
        # 79.5 - 80 must not miss -0.5 by a rounding error.
        return point(round(value - base.metrics[gate.quantity], 9))
    return point(value)


def _of_no_difference(gate: Gate, otherwise: str) -> ConvkitError:
    """A loss that is asked of a score which the baseline has the best of: any candidate would pass, or none."""
    return ConvkitError(
        f"{gate.text!r} asks for a difference, and {gate.quantity} is one to the baseline by itself",
        hint=f"give what it must reach, above 0 and without a sign{otherwise}",
    )


def _by_labels(name: str, base: Result) -> bool:
    """Whether the score is one against labels; against itself the baseline has none but the best."""
    found = metric.load(name)
    return found.needs == "labels" or (found.unit == "dB" and base.metrics[name] < metric.LIMIT_DB)


def _figure(gate: Gate, result: Result, base: Result) -> Interval:
    ratio = gate.kind == "ratio"
    if gate.quantity in TIMES:
        return (result.ratios if ratio else result.seconds)[gate.quantity]
    if gate.quantity == "throughput":
        return _throughput(result.ratios["mean"] if ratio else result.seconds["mean"], 1.0 if ratio else result)
    own, other = _once(gate, result), _once(gate, base)
    if ratio and not other:
        raise ConvkitError(f"{gate.text!r}: the baseline's {gate.quantity} is 0", hint="give an absolute limit")
    return point(own / other if ratio else own)


def _throughput(mean: Interval, of: Result | float) -> Interval:
    """Calls (or samples) a second from seconds a call: the ends change places."""
    calls = of if isinstance(of, float) else of.throughput * of.seconds["mean"].value
    return Interval(calls / mean.value, calls / mean.high, calls / mean.low)


def _once(gate: Gate, result: Result) -> float:
    """What is measured once: size, memory, load."""
    if gate.quantity == "size":
        if result.size is None:
            raise ConvkitError(f"{gate.text!r}: {result.name} is no file", hint="gate the size of files only")
        return float(result.size)
    return float(result.memory) if gate.quantity == "memory" else result.load_seconds
