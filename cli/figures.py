"""Figures as people read them: milliseconds, megabytes, ratios with their interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convkit.runtimes.bench.estimate import Interval
    from convkit.runtimes.bench.gate import Gate
    from convkit.runtimes.bench.gpu import Conditions
    from convkit.runtimes.bench.measure import Measurement
    from convkit.runtimes.bench.verdict import Judgement, Verdict

_MEGA = 1e6
_MILLI = 1e3


def milliseconds(seconds: float) -> str:
    """Four significant figures: 9.432, 0.05310."""
    return f"{seconds * _MILLI:#.4g}".rstrip(".")


def megabytes(size: float | None) -> str:
    """One decimal; – where there is no file."""
    return "–" if size is None else f"{size / _MEGA:.1f}"


def ratio(interval: Interval) -> str:
    """`0.612 (0.608–0.617)`."""
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def candidates(measurement: Measurement) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the table of candidates."""
    names = list(measurement.results[0].metrics)
    columns = ["candidate", "p50 ms", "p90 ms", "p99 ms", "per s", "p50 ratio (95 %)", "memory MB", "size MB", "load s"]
    rows = []
    for result in measurement.results:
        times = [milliseconds(result.seconds[key].value) for key in ("p50", "p90", "p99")]
        against = "baseline" if result.name == measurement.baseline else ratio(result.ratios["p50"])
        sizes = [megabytes(result.memory), megabytes(result.size), f"{result.load_seconds:.2f}"]
        scores = [f"{result.metrics[name]:.2f}" for name in names]
        rows.append([result.name, *times, f"{result.throughput:.1f}", against, *sizes, *scores])
    return [*columns, *names], rows


def missed(verdict: Verdict) -> str:
    """The gates that make it fail, the first in full."""
    failed = [judgement for judgement in verdict.judgements if verdict.fails(judgement)]
    first = failed[0]
    found = f"{measured(first.gate, first.measured)}{', undecided' if first.state == 'undecided' else ''}"
    words = f"{len(failed)} of {len(verdict.judgements)} gates failed"
    return f"{words}; the first: {first.candidate}, {first.gate.text}: measured {found}"


def gates(judgements: Sequence[Judgement]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the table of gates."""
    rows = [
        [judgement.gate.text, judgement.candidate, measured(judgement.gate, judgement.measured), judgement.state]
        for judgement in judgements
    ]
    return ["gate", "candidate", "measured (95 %)", "verdict"], rows


def measured(gate: Gate, interval: Interval) -> str:
    """A measured figure in the unit its gate is written in, with its interval where it has one."""
    scale, unit = _unit(gate)
    value, low, high = (f"{figure * scale:.4g}" for figure in (interval.value, interval.low, interval.high))
    return f"{value}{unit}" if interval.low == interval.high else f"{value}{unit} ({low}–{high})"


def machine(measurement: Measurement) -> str:
    """One line: what it ran on and how."""
    facts = measurement.machine
    versions = ", ".join(f"{name} {version}" for name, version in facts["engines"].items() if name != "null")
    flags = " ".join(facts["flags"])
    cpu = f"{facts['cpu']} ({facts['usable']} cores{'; ' + flags if flags else ''}), load {facts['load']}"
    return f"{cpu}; {versions or 'no engine'}; batch {measurement.batch}, {measurement.rounds} rounds"


def gpus(measurement: Measurement) -> list[str]:
    """One line for each candidate that ran on a GPU: what the GPU was like meanwhile."""
    return [f"{result.name}: {_conditions(result.gpu)}" for result in measurement.results if result.gpu]


def _conditions(found: Conditions) -> str:
    low, clock, high = found.clock
    held = ", ".join(f"{reason} {share:.0%}" for reason, share in found.held_by.items())
    warm = f"{found.temperature[0]:.0f}–{found.temperature[2]:.0f} °C, {found.power[1]:.0f} W"
    return f"GPU at {clock:.0f} MHz ({low:.0f}–{high:.0f}), {warm}, held down by {held or 'nothing'}"


def _unit(gate: Gate) -> tuple[float, str]:
    if gate.kind == "ratio":
        return 1.0, "x"
    if gate.quantity in {"p50", "p90", "p99", "mean", "load"}:
        return _MILLI, " ms"
    if gate.quantity in {"size", "memory"}:
        return 1 / _MEGA, " MB"
    return 1.0, "/s" if gate.quantity == "throughput" else ""
