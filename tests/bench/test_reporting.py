"""REPORT.md on the figures of parts that are made up."""

from pathlib import Path
from typing import Any

from convkit.compress import record
from tests.bench import reporting

FACTS = {
    "machine": {"cpu": "a CPU", "cores": 2, "flags": ["avx2"]},
    "versions": {"convkit": "1"},
    "peers": {"rival": {"rival-package": "2"}},
}


def _result(name: str, ratio: float) -> dict[str, Any]:
    point = {"value": ratio, "low": ratio, "high": ratio}
    ratios = {} if name == "float" else {"p50": point}
    return {"name": name, "seconds": {"p50": {"value": ratio / 100}}, "ratios": ratios, "metrics": {"top1": 83.4}}


def test_parts_become_tables(tmp_path: Path) -> None:
    found = {
        "network": "lite0",
        "engine": "openvino",
        "measurement": {"results": [_result("float", 1.0), _result("rival", 0.4), _result("convkit", 0.38)]},
        "searched": {"convkit": {"command": {"seconds": 240.0}, "evaluations": 12, "missed": "out | of reach"}},
        "peers": {"rival": {"seconds": 60.0, "evaluations": 150.5}},
        "zero_shot_agreement": {"convkit": 98.4},
        "absent": {"other": "it was not packed"},
    }
    line = {
        "where": "lite0",
        "what": "p50",
        "measured": {"value": 0.95, "low": 0.9, "high": 1.0},
        "unit": "x",
        "sense": "<=",
        "limit": 1.0,
        "verdict": "pass",
    }
    record.write_json(tmp_path / "mixed.json", FACTS | {"mixed": [found], "limits": [line]})
    record.write_json(tmp_path / "something.json", [1])
    reporting.write(tmp_path)
    text = (tmp_path / reporting.FILE).read_text()
    assert "| rival | 4.000 | 0.400 | 0.400 to 0.400 | 83.40 |  | 60 | 150.5 |" in text
    assert "| convkit | 3.800 | 0.380 | 0.380 to 0.380 | 83.40 | 98.4 | 240 | 12 |" in text
    assert "* without other: it was not packed" in text
    assert "* rival: rival-package 2" in text
    assert "| lite0 | p50 | 0.950 x (0.900 to 1.000) | <= 1.00 x | pass |" in text
