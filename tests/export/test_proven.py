"""What is proven of every novel convolution: the table of `convkit list convs`, found anew and held against it.

`pytest tests/export/test_proven.py --regenerate` writes it.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from convkit.compress import conv as convs
from convkit.compress import membership, parts
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.conv import FOLDER, Conv, Example, Proof, ProvenFormat
from convkit.compress.model import Model
from convkit.export import exporter, lint
from convkit.export.tensorrt import asserted
from convkit.export.tensorrt.request import Settings
from tests.compress.convs.test_convs import CLOSE, FOLDS, inputs, made, off, traced
from tests.export.tensorrt.planned import TARGET, uniform
from tests.export.test_functions import run_by_onnxruntime, run_by_openvino, written

SMS = (75, 80, 86, 89, 120)
FORMATS, SAMPLE = ("int8", "fp8_e4m3", "fp16", "bf16"), ("int8",)
"""All are simulated each time; engines are built in the second each time, in all where the table is written."""
EXACT = ("simplify", "fold_batch_norm")
RTX, RUNNING = "tensorrt_rtx", {"onnxruntime": run_by_onnxruntime, "openvino": run_by_openvino}
DECIBELS = 1.0
"""Machines may differ by so much in the noise of one number."""


@pytest.mark.parametrize("name", parts.names(FOLDER))
def test_the_table_says_what_was_found(name: str, request: pytest.FixtureRequest) -> None:
    part: Conv = parts.load(FOLDER, name)
    shown = made(name)
    whole: bool = request.config.getoption("--regenerate")
    for example in shown if whole else ():  # else test_functions.py does, each time
        _run(example)
    engines = {**dict.fromkeys(RUNNING, "runs"), "trt-rtx": _built(shown, whole=whole)}
    numbers = {number: _in(shown[0], number, built=whole or number in SAMPLE) for number in FORMATS}
    formats = {number: one for number, one in numbers.items() if one.layers}
    found = Proof(part.paper, part.tier, engines, formats, dict(part.kept))
    file = parts.path(FOLDER, name, ".py").parent / "proven" / f"{name}.json"
    if whole:
        file.write_text(json.dumps(asdict(found), indent=2) + "\n")
    stored = convs.proof(name)
    assert stored is not None, f"no {file}; run pytest --regenerate and read what it wrote"
    assert _without_noise(stored) == _without_noise(found)
    for number, one in found.formats.items():
        assert stored.formats[number].sqnr == pytest.approx(one.sqnr, abs=DECIBELS)


def _without_noise(proof: Proof) -> dict[str, Any]:
    return asdict(proof) | {"formats": {number: found.layers for number, found in proof.formats.items()}}


def _run(example: Example) -> None:
    """Engines compute it as torch does."""
    given = inputs(example, example.batches[-1])
    with torch.no_grad():
        wanted = example.layer.eval()(**given)
    for engine, run in RUNNING.items():
        assert off(run(written(example, engine, methods=FOLDS), given), wanted) <= CLOSE


def _built(shown: Sequence[Example], *, whole: bool) -> str:
    """Compute capabilities that engines are built for, as lint foresees; a sample of them is built, or the `whole`."""
    refused: dict[str, list[int]] = {}
    for turn, example in enumerate(shown):
        model = prepare(traced(example), FOLDS)
        with tempfile.TemporaryDirectory() as folder:
            path = exporter.find(TARGET.name)[0].write(model, Path(folder), TARGET.opset).path
            file = onnx.load(path)
            for place, sm in enumerate(SMS):
                findings = lint.lint(file, RTX, lint.Device(sm))
                if findings:
                    refused.setdefault(findings[0].words, []).append(sm)
                elif whole or place == turn % len(SMS):
                    layers = asserted.build_and_assert(RTX, path, Settings(sm=sm)).findings
                    assert all(layer.holds for layer in layers)
    never = {sm for sms in refused.values() for sm in sms}
    words = [f"builds for SM {'/'.join(str(sm) for sm in SMS if sm not in never)}"]
    why = [f"not always for SM {'/'.join(map(str, sorted(set(sms))))}: {reason}" for reason, sms in refused.items()]
    return "; ".join(words + why)


def _in(example: Example, number: str, *, built: bool) -> ProvenFormat:
    """Layers that a format holds in, asserted of the engine if `built`, and what the output loses by it, simulated."""
    target, model = TARGET, prepare(traced(example), EXACT)
    batch = 4 if len(example.batches) > 1 else 1
    calibration, held = ([inputs(example, batch, seed) for seed in seeds] for seeds in ((4, 5), (6, 7)))
    plan = uniform(model, number, target, EXACT, calibration)
    made = apply_prepared(model, plan, target, calibration)
    assert not membership.kept_in(model.graph).keys() & plan.layers.keys()
    if built:
        with tempfile.TemporaryDirectory() as folder:
            path = exporter.find(target.name)[0].write(made, Path(folder), target.opset).path
            assert all(layer.holds for layer in asserted.build_and_assert(RTX, path, Settings(sm=89)).findings)
    return ProvenFormat(len(plan.layers), round(_sqnr(made, model, held), 1))


def _sqnr(made: Model, model: Model, held: Sequence[dict[str, torch.Tensor]]) -> float:
    metric = parts.load("compress/metrics", "sqnr")
    both = [[next(iter(one(batch).values())).numpy() for batch in held] for one in (made, model)]
    return min(metric.score({"y": a}, {"y": b}, None) for a, b in zip(*both, strict=True))
