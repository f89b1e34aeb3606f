"""What a search keeps is rounded by learning in the end, where that is nearer on the engine."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from convkit.compress import plan as plans
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.measure import Measurement, Result, Settings
from tests.cli import quantizable, steady
from tests.cli.commands.test_quantize import heavy_and_samples
from tests.command_line import Convkit

OPTIONS = ("--target", "onnxruntime-cpu", "--budget", "1", "--threads", "1", "--no-tune", "--min-sqnr", "5")


@pytest.mark.parametrize(("gain", "learnt"), [(1.0, True), (-1.0, False)])
def test_what_is_kept_is_learnt_where_that_is_nearer(
    convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, *, learnt: bool
) -> None:
    def measure(
        candidates: Sequence[Candidate], baseline: str, data: object, settings: Settings, **_: object
    ) -> Measurement:
        found = steady.measure(candidates, baseline, data, settings)
        return replace(found, results=tuple(map(told, found.results)))

    def told(result: Result) -> Result:
        """All in INT8 is the fastest, and what is learnt nearer, or further off, than what is not."""
        sqnr = 90 + gain * result.name.endswith("learned rounding")
        shorter = 0.9 if result.name.startswith("uniform") else 1.0
        ratios = {name: steady.around(one.value * shorter) for name, one in result.ratios.items()}
        return replace(result, ratios=ratios, metrics={**result.metrics, "sqnr": sqnr})

    heavy_and_samples(tmp_path / "net.onnx", tmp_path / "calib.npz")
    quantize = quantizable.searching(convkit, tmp_path, tmp_path, monkeypatch, OPTIONS)
    monkeypatch.setattr(steady.MEASURE, measure)
    done = quantize("--formats", "int8")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["kept"] == ("uniform, learned rounding" if learnt else "uniform")
    names = [one["name"] for one in report["networks"]]
    assert {"original", "searched", "uniform"} <= set(names)
    plan = plans.read(tmp_path / "out/plan.yaml")
    assert ("learned_round" in plan.methods) == learnt
    assert len(set(names)) == len(names)
