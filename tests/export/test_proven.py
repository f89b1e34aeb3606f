"""What is proven of every novel convolution: the table of `convkit list convs`, found anew and held against it.

`pytest tests/export/test_proven.py --regenerate` writes it.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from convkit.compress import conv as convs
from convkit.compress import parts
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.conv import FOLDER, Conv, Example, Proof, ProvenFormat
from convkit.compress.model import Model
from convkit.export import exporter
from convkit.export.tensorrt import asserted
from convkit.export.tensorrt.request import Settings
from tests.compress.convs.test_convs import CLOSE, FOLDS, inputs, made, off, traced
from tests.export.tensorrt.planned import TARGET, uniform
from tests.export.test_functions import run_by_onnxruntime, run_by_openvino, written

SMS = (75, 80, 86, 89, 120)
FORMATS = ("int8", "fp8_e4m3", "fp16", "bf16")
EXACT = ("simplify", "fold_batch_norm")
RTX = "tensorrt_rtx"
DECIBELS = 1.0
"""Machines may differ by so much in the noise of one number."""


@pytest.mark.parametrize("name", parts.names(FOLDER))
def test_the_table_says_what_was_found(name: str, request: pytest.FixtureRequest) -> None:
    part: Conv = parts.load(FOLDER, name)
    shown = made(name)
    engines = {**_run(shown), "trt-rtx": _built(shown)}
    formats = {number: found for number in FORMATS if (found := _in(shown[0], number)).layers}
    found = Proof(part.paper, part.tier, engines, formats, dict(part.kept))
    file = parts.path(FOLDER, name, ".py").parent / "proven" / f"{name}.json"
    if request.config.getoption("--regenerate"):
        file.write_text(json.dumps(asdict(found), indent=2) + "\n")
    stored = convs.proof(name)
    assert stored is not None, f"no {file}; run pytest --regenerate and read what it wrote"
    assert _without_noise(stored) == _without_noise(found)
    for number, numbers in found.formats.items():
        assert stored.formats[number].sqnr == pytest.approx(numbers.sqnr, abs=DECIBELS)


def _without_noise(proof: Proof) -> dict[str, Any]:
    return asdict(proof) | {"formats": {number: found.layers for number, found in proof.formats.items()}}


def _run(shown: Sequence[Example]) -> dict[str, str]:
    """Engines that compute every example as torch does."""
    for example in shown:
        given = inputs(example, example.batches[-1])
        with torch.no_grad():
            wanted = example.layer.eval()(**given)
        assert off(run_by_onnxruntime(written(example, "onnxruntime", methods=FOLDS), given), wanted) <= CLOSE
        assert off(run_by_openvino(written(example, "openvino", methods=FOLDS), given), wanted) <= CLOSE
    return {"onnxruntime": "runs", "openvino": "runs"}


def _built(shown: Sequence[Example]) -> str:
    """Compute capabilities that engines are built for, of every example one at least; lint foresees what is not."""
    refused: dict[str, list[int]] = {}
    for turn in range(max(len(SMS), len(shown))):
        sm, model = SMS[turn % len(SMS)], prepare(traced(shown[turn % len(shown)]), FOLDS)
        with tempfile.TemporaryDirectory() as folder:
            path = exporter.find(TARGET.name)[0].write(model, Path(folder), TARGET.opset).path
            try:
                found = asserted.build_and_assert(RTX, path, Settings(sm=sm)).findings
                assert all(layer.holds for layer in found)
            except asserted.ForeseenError as error:
                refused.setdefault(error.findings[0].words, []).append(sm)
    never = [sm for sms in refused.values() for sm in sms]
    words = [f"builds for SM {'/'.join(str(sm) for sm in SMS if sm not in never)}"]
    return "; ".join(words + [f"not always for SM {'/'.join(map(str, sms))}: {why}" for why, sms in refused.items()])


def _in(example: Example, number: str) -> ProvenFormat:
    """Layers that a format holds in, as asserted of the engine, and what the output loses by it, simulated."""
    target, model = TARGET, prepare(traced(example), EXACT)
    calibration, held = ([inputs(example, seed) for seed in seeds] for seeds in ((4, 5), (6, 7)))
    plan = uniform(model, number, target, EXACT, calibration)
    made = apply_prepared(model, plan, target, calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = exporter.find(target.name)[0].write(made, Path(folder), target.opset).path
        found = asserted.build_and_assert(RTX, path, Settings(sm=89))
    assert all(layer.holds for layer in found.findings)
    assert not convs.kept_in(model.graph).keys() & plan.layers.keys()
    return ProvenFormat(len(plan.layers), round(_sqnr(made, model, held), 1))


def _sqnr(made: Model, model: Model, held: Sequence[dict[str, torch.Tensor]]) -> float:
    metric = parts.load("compress/metrics", "sqnr")
    both = [[next(iter(one(batch).values())).numpy() for batch in held] for one in (made, model)]
    return min(metric.score({"y": a}, {"y": b}, None) for a, b in zip(*both, strict=True))
