"""Markdown tables, for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from convkit.cli import figures
from convkit.cli.reports import Report
from convkit.runtimes.bench.measure import Measurement
from convkit.runtimes.bench.verdict import Verdict


def _write(measurement: Measurement, verdict: Verdict) -> str:
    blocks = [_table(*figures.candidates(measurement)), figures.machine(measurement)]
    if verdict.judgements:
        blocks.append(_table(*figures.gates(verdict.judgements)))
    blocks += [f"> warning: {warning}" for warning in measurement.warnings]
    return "\n\n".join(blocks) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PART = Report(_write)
