"""JUnit XML, which CI servers show as tests: one case per gate and candidate; undecided is `skipped`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from convkit.cli import figures
from convkit.cli.reports import Report

if TYPE_CHECKING:
    from convkit.runtimes.bench.measure import Measurement
    from convkit.runtimes.bench.verdict import Judgement, Verdict


def _write(measurement: Measurement, verdict: Verdict) -> str:
    failures = sum(verdict.fails(judgement) for judgement in verdict.judgements)
    skipped = sum(judgement.state == "undecided" for judgement in verdict.judgements if not verdict.fails(judgement))
    counts = {"tests": str(len(verdict.judgements)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    root = Element("testsuites", {"name": "convkit bench", **counts})
    suite = SubElement(root, "testsuite", {"name": "convkit bench", **counts})
    properties = SubElement(suite, "properties")
    SubElement(properties, "property", {"name": "machine", "value": _plain(figures.machine(measurement))})
    for judgement in verdict.judgements:
        _case(suite, judgement, measurement.baseline, failed=verdict.fails(judgement))
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, judgement: Judgement, baseline: str, *, failed: bool) -> None:
    case = SubElement(
        suite, "testcase", {"classname": _plain(judgement.candidate), "name": _plain(judgement.gate.text), "time": "0"}
    )
    words = f"measured {figures.measured(judgement.gate, judgement.measured)}, baseline {baseline}"
    if failed:
        SubElement(case, "failure", {"type": judgement.state, "message": _plain(words)})
    elif judgement.state == "undecided":
        SubElement(case, "skipped", {"message": _plain(f"undecided: {words}")})
    else:
        SubElement(case, "system-out").text = _plain(words)


def _plain(words: str) -> str:
    """XML 1.0 has no control characters, escaped or not."""
    return "".join(character if character.isprintable() else "\ufffd" for character in words)


PART = Report(_write)
