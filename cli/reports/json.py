"""JSON with a `schema_version`: every figure, its interval, the machine and the gates."""

from __future__ import annotations

import dataclasses
from typing import Any

from convkit.cli.reports import Report
from convkit.compress import record
from convkit.runtimes.bench.measure import Measurement
from convkit.runtimes.bench.verdict import Verdict

SCHEMA_VERSION = 1


def as_dict(measurement: Measurement, verdict: Verdict) -> dict[str, Any]:
    """Seconds, bytes and samples a second throughout; intervals are {value, low, high} at 95 %."""
    fields = dataclasses.asdict(measurement)
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": fields.pop("baseline"),
        "candidates": fields.pop("results"),
        **fields,
        "gates": [dataclasses.asdict(judgement) for judgement in verdict.judgements],
        "passed": not verdict.failed,
    }


PART = Report(lambda measurement, verdict: record.to_json(as_dict(measurement, verdict)))
