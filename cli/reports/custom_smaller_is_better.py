"""The list that github-action-benchmark reads as `customSmallerIsBetter`: times, memory and size per candidate."""

from __future__ import annotations

from typing import Any

from convkit.cli import figures
from convkit.cli.reports import Report
from convkit.compress import record
from convkit.runtimes.bench.measure import Measurement, Result
from convkit.runtimes.bench.verdict import Verdict


def _write(measurement: Measurement, _verdict: Verdict) -> str:
    entries = [entry for result in measurement.results for entry in _entries(result, measurement)]
    return record.to_json(entries)


def _entries(result: Result, measurement: Measurement) -> list[dict[str, Any]]:
    extra = figures.machine(measurement)
    entries = [
        _entry(f"{result.name} {key}", "ms", interval.value * 1e3, (interval.high - interval.low) / 2 * 1e3, extra)
        for key, interval in result.seconds.items()
    ]
    if result.name != measurement.baseline:
        against = f"{result.name} p50 ratio to {measurement.baseline}"
        interval = result.ratios["p50"]
        entries.append(_entry(against, "x", interval.value, (interval.high - interval.low) / 2, extra))
    entries.append(_entry(f"{result.name} memory", "MB", result.memory / 1e6, 0.0, extra))
    if result.size is not None:
        entries.append(_entry(f"{result.name} size", "MB", result.size / 1e6, 0.0, extra))
    return entries


def _entry(name: str, unit: str, value: float, spread: float, extra: str) -> dict[str, Any]:
    return {"name": name, "unit": unit, "value": value, "range": f"± {spread:.4g}", "extra": extra}


PART = Report(_write)
