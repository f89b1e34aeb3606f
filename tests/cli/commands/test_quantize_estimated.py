"""Where the target's engine is not at hand, times are estimates and are told as such; networks are run elsewhere."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from convkit.cli import foretold, quantizing
from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress import target as targets
from convkit.compress.errors import NotAvailableError
from convkit.compress.plan import Plan
from convkit.compress.target import Target
from convkit.runtimes.session import Options, open_session
from tests.cli import quantizable
from tests.command_line import Convkit

GROUPED = """import torch
from torch import nn
def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3)
    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean((2, 3))
    return Net(*layers)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, and a device on which it takes more than its layers' starts."""
    made = quantizable.write(tmp_path_factory.mktemp("net"))
    roof = yaml.safe_load(parts.path("recipes/targets", "trt").read_text())["roofline"]
    roof |= {"layer_seconds": 1e-9, "bytes_per_second": 1e12}
    (made / "large.yaml").write_text(yaml.safe_dump({"like": "trt-rtx", "roofline": roof}))
    return made


def on(folder: Path) -> tuple[str, str]:
    return "--target", str(folder / "large.yaml")


def test_a_network_is_quantized_without_its_engine(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    quantize = quantizable.command(convkit, folder, tmp_path / "out")
    done = quantize(*on(folder))
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "TensorRT for RTX is not at hand: times are estimates, not measured" in shown
    assert "estimate ratio size" in shown
    for word in ("p50", "undisturbed", "95 %"):
        assert word not in done.out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["estimated_latency"] is True
    assert report["measurement"]["rounds"] == 0
    original, kept = report["networks"]
    assert kept["ratios"]["p50"]["value"] < 1 == original["ratios"]["p50"]["value"]
    assert all(i["low"] == i["value"] == i["high"] for one in (original, kept) for i in one["ratios"].values())
    assert kept["metrics"]["sqnr"] > 15
    plan = plans.read(tmp_path / "out/plan.yaml")
    assert plan.target == "large"
    assert {layer.activation for layer in plan.layers.values()} == {"int8"}
    x = {"x": quantizable.samples(2)["x"]}
    low, high = (
        open_session("onnxruntime", str(path), Options()).run(x)["scores"]
        for path in (tmp_path / "out/model.onnx", folder / "net.onnx")
    )
    assert 0 < np.abs(low - high).max() < 0.2 * np.abs(high).max()


_ELEMENTS = [
    ((), "INT8"),
    (("fp16",), "FLOAT16"),
    (("bf16",), "BFLOAT16"),
    (("int4/int8",), "INT8"),
    (("fp4_e2m1/fp8_e4m3",), "FLOAT8E4M3FN"),
    (("fp8_e5m2/fp8_e4m3",), "FLOAT8E4M3FN"),
]


@pytest.mark.parametrize(("asked", "element"), _ELEMENTS)
def test_the_plan_gives_the_same_file_again(
    convkit: Convkit, folder: Path, tmp_path: Path, asked: tuple[str, ...], element: str
) -> None:
    """Also where the engine wants types that its stand-in has no kernels for, and lacks those that were asked for."""
    words = ("--precision", *asked) if asked else ()
    done = quantizable.command(convkit, folder, tmp_path / "out")(*on(folder), *words)
    assert done.code == 0, done.err
    words = (
        "--plan",
        tmp_path / "out/plan.yaml",
        "--data",
        folder / "calib.npz",
        "--no-build",
        "-o",
        tmp_path / "again",
    )
    done = convkit("export", str(folder / "net.onnx"), *map(str, words), *on(folder))
    assert done.code == 0, done.err
    assert (tmp_path / "again/model.onnx").read_bytes() == (tmp_path / "out/model.onnx").read_bytes()
    held = onnx.load(tmp_path / "out/model.onnx").graph.initializer
    assert {onnx.TensorProto.DataType.Name(each.data_type) for each in held if len(each.dims) == 4} == {element}
    looked = convkit("lint", str(tmp_path / "out/model.onnx"), *on(folder), "--sm", "89")
    assert looked.code == 0, looked.out


def test_nothing_of_the_stand_in_is_in_the_file(
    convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime has group norms as instance norms, and novel convolutions as functions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grouped.py").write_text(GROUPED)
    data = "--shape", "x:Nx3x8x8", "--data", str(folder / "calib.npz")
    done = convkit("quantize", "grouped:build", *data, *on(folder), "-o", "out")
    assert done.code == 0, done.err
    done = convkit(
        "export", "grouped:build", *data, "--plan", "out/plan.yaml", *on(folder), "--no-build", "-o", "again"
    )
    assert done.code == 0, done.err
    assert (tmp_path / "out/model.onnx").read_bytes() == (tmp_path / "again/model.onnx").read_bytes()
    file = onnx.load(tmp_path / "out/model.onnx")
    assert "InstanceNormalization" not in {node.op_type for node in file.graph.node}
    assert not file.functions


def test_what_is_trained_is_the_target_s_own_file(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    """No time of the engine that stands in is told."""
    data = "--data", str(folder / "calib.npz"), "--batch", "6", "--epochs", "1"
    words = "--precision", "bf16", *data, *on(folder), "-o", str(tmp_path / "out"), "--json"
    done = convkit("train", str(folder / "net.onnx"), *words)
    assert done.code == 0, done.err
    assert "TensorRT for RTX is not at hand: onnxruntime computes the scores, and no time is told" in " ".join(
        done.err.split()
    )
    report = json.loads(done.out)
    assert {one["ratio"] for one in report["networks"].values()} == {None}
    held = onnx.load(tmp_path / "out/model.onnx").graph.initializer
    assert {onnx.TensorProto.DataType.Name(each.data_type) for each in held if len(each.dims) == 4} == {"BFLOAT16"}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["target"] == "large"


def test_a_search_by_estimates_says_so_everywhere(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    quantize = quantizable.command(convkit, folder, tmp_path / "out")
    done = quantize(*on(folder), "--formats", "int8,fp8_e4m3", "--latency", "<=0.9x")
    assert done.code == 0, done.err
    assert "estimated 0." in done.err
    assert "measured 0." not in done.err
    assert "o built, its time estimated" in done.out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["search"]["estimated_latency"] is True
    assert report["networks"][0]["ratios"]["p50"]["value"] == 1
    kept = next(one for one in report["networks"] if one["name"] == report["kept"])
    assert kept["ratios"]["p50"]["value"] <= 0.9
    assert "ESTIMATED time" in (tmp_path / "out/front.svg").read_text()
    chosen = convkit("choose", str(tmp_path / "out"), "--latency", "<=0.95x")
    assert "estimated, not measured" in chosen.out


def test_int8_and_fp16_in_one_network(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    """A float that single layers run in is searched as integers are, and the engine is built as the plan says."""
    quantize = quantizable.command(convkit, folder, tmp_path / "out")
    done = quantize(*on(folder), "--formats", "int8,fp16", "--latency", "<=0.8x")
    assert done.code == 0, done.err
    plan = plans.read(tmp_path / "out/plan.yaml")
    planned = Counter(layer.weight for layer in plan.layers.values() if layer.weight)
    assert set(planned) == {"int8", "fp16"}
    (tmp_path / "plan.yaml").write_text(plans.dump(replace(plan, target="trt-rtx")))
    places = ("--plan", tmp_path / "plan.yaml", "--data", folder / "calib.npz", "-o", tmp_path / "engine")
    words = ("export", folder / "net.onnx", *places, "--target", "trt-rtx", "--sm", "80")
    built = convkit(*map(str, words))
    assert built.code == 0, built.err
    ran = json.loads((tmp_path / "engine/report.json").read_text())["engine"]["runs_in"]
    assert {name: ran[name] for name in planned} == planned


def test_what_only_saves_storage_is_estimated_as_float(folder: Path) -> None:
    job = replace(quantizable.job(folder), target=targets.load(str(folder / "large.yaml")))
    seconds = foretold.estimator(job)
    layers = {name: layer for name, layer in _uniform(job).layers.items() if layer.weight}
    low, stored = (
        {name: replace(layer, weight=number) for name, layer in layers.items()} for number in ("int4", "e3m4")
    )
    usual = ("simplify", "fold_batch_norm")
    original, *few = (seconds(Plan("", "trt-rtx", usual, found)) for found in ({}, layers, low, stored))
    assert few[0] == few[1] < original == few[2]


def _uniform(job: quantizing.Job) -> Plan:
    from convkit.cli import batches
    from convkit.compress.search import remedies

    task = quantizing.task(job, *batches.split(job.data, job.seed))
    return next(iter(remedies.attempts(task))).plan


def test_a_target_is_at_hand_where_its_engine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise NotAvailableError("openvino is not installed", hint="pip install 'convkit[openvino]'")

    here: Target = targets.load("openvino-cpu")
    assert foretold.at_hand(here)
    assert not foretold.at_hand(targets.load("trt-rtx"))
    runtime = parts.load("runtimes", "openvino")
    monkeypatch.setattr("convkit.runtimes.openvino.PART", replace(runtime, version=missing))
    with pytest.raises(NotAvailableError):
        foretold.at_hand(here)
    assert not foretold.at_hand(replace(here, stand_in="onnxruntime"))


def test_nothing_is_benched_by_estimates(convkit: Convkit, folder: Path) -> None:
    """A pipeline can tell "not measured" from "slower"."""
    done = convkit("bench", "--target", "trt-rtx", str(folder / "net.onnx"), "--gate", "p50 <= 1x")
    assert done.code == 3
    assert "NVIDIA TensorRT for RTX is not at hand: nothing is measured" in done.err
