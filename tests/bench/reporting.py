"""REPORT.md: what the parts of the bench found, as Markdown tables with the machine they were found on.

python -m tests.bench.reporting OUT     writes it anew from the PART.json files there
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convkit.compress import record

FILE = "REPORT.md"


def write(folder: Path) -> None:
    """From every `PART.json` in `folder`."""
    reports = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    known = {name: report for name, report in reports.items() if isinstance(report, dict) and "limits" in report}
    record.write_bytes(folder / FILE, "\n".join(_lines(known)).encode())


def _lines(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "# What the bench found\n"
    for part, report in reports.items():
        yield f"## {part}\n"
        yield _machine(report)
        for found in (*report.get("comparisons", ()), *report.get("mixed", ())):
            yield from _compared(found)
        yield "### limits\n"
        yield from _table(["network, engine", "what", "measured", "limit", "verdict"], map(_limit, report["limits"]))


def _machine(report: Mapping[str, Any]) -> str:
    facts = report["machine"]
    told = [f"{facts.get('cpu', 'CPU')}, {facts.get('cores', '?')} cores", "flags: " + " ".join(facts.get("flags", ()))]
    peers = [f"{name}: {_versions(versions)}" for name, versions in report.get("peers", {}).items()]
    return "\n".join([f"* {line}" for line in (*told, _versions(report["versions"]), *peers)] + [""])


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _compared(found: Mapping[str, Any]) -> Iterator[str]:
    results = found["measurement"]["results"]
    names = list(results[0]["metrics"])
    peers, zero = found.get("peers", {}), found.get("zero_shot_agreement", {})
    yield f"### {found['network']} in {found['engine']}\n"
    head = ["candidate", "p50 ms", "over float", "95 %", *(name.rpartition(":")[2] for name in names)]
    yield from _table(
        [*head, "zero-shot agreement", "took s", "full evaluations"],
        (_row(one, names) + _work(one["name"], found, peers, zero) for one in results),
    )
    for name, reason in found.get("absent", {}).items():
        yield f"* without {name}: {reason}"
    for name, one in found.get("searched", {}).items():
        if one["missed"]:
            yield f"* {name}: {one['missed']}"
    yield ""


def _row(result: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    ratio = result["ratios"].get("p50")
    over = ["1", ""] if ratio is None else [f"{ratio['value']:.3f}", f"{ratio['low']:.3f} to {ratio['high']:.3f}"]
    scores = [f"{result['metrics'][name]:.2f}" for name in names]
    return [result["name"], f"{result['seconds']['p50']['value'] * 1e3:.3f}", *over, *scores]


def _work(name: str, found: Mapping[str, Any], peers: Mapping[str, Any], zero: Mapping[str, float]) -> list[str]:
    """Zero-shot agreement, seconds and evaluations that a candidate took, as far as they are told."""
    own = found.get("searched", {}).get(name, {})
    cost = peers.get(name, {})
    seconds = own["command"]["seconds"] if own else cost.get("seconds")
    count = own.get("evaluations") if own else cost.get("evaluations")
    figures = (zero.get(name), seconds, count)
    return ["" if figure is None else f"{figure:.4g}" for figure in figures]


def _limit(line: Mapping[str, Any]) -> list[str]:
    measured, unit = line["measured"], line["unit"]
    interval = "" if measured["low"] == measured["high"] else f" ({measured['low']:.3f} to {measured['high']:.3f})"
    told = f"{measured['value']:.3f} {unit}{interval}"
    return [line["where"], line["what"], told, f"{line['sense']} {line['limit']:.2f} {unit}", line["verdict"]]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    write(Path(sys.argv[1]))
