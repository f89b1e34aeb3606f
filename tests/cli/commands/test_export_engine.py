"""`convkit export` for TensorRT: the engine, what it runs in, and every way in which there is none."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from convkit.compress import plan as plans
from convkit.compress import record
from convkit.compress.model import ModelRef, load
from convkit.export.tensorrt import package
from tests.cli import quantizable
from tests.command_line import Convkit, Result
from tests.compress.network import Net, residual
from tests.export.tensorrt.custom import TWICE, failing, network, saved
from tests.export.tensorrt.planned import NAIVE, planned

RTX = ("--target", "trt-rtx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("net"))


def export(convkit: Convkit, folder: Path, out: Path, *words: str) -> Result:
    return convkit("export", str(folder / "net.onnx"), "-o", str(out), *words)


def test_an_engine_is_built_and_its_layers_are_told(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    done = export(convkit, folder, tmp_path / "out", *RTX, "--sm", "89")
    assert done.code == 0, done.err
    engine = tmp_path / "out/engine.trt"
    assert "for SM 89, built by tensorrt_rtx" in " ".join(done.out.split())
    assert "layers with weights: 5 in fp32" in done.out
    report = json.loads((tmp_path / "out/report.json").read_text())["engine"]
    assert report["runs_in"] == {"fp32": 5}
    assert [layer["holds"] for layer in report["layers"]] == [True] * 5
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["digests"]["engine"] == report["digest"] == record.digest_file(engine)


def test_a_quantized_plan_runs_in_int8(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder / "net.onnx", "int8", tmp_path)
    done = export(convkit, folder, tmp_path / "out", *RTX, "--sm", "89", "--plan", plan, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["engine"]["runs_in"] == {"int8": 5}


def plan_of(model: Path, number: str, folder: Path) -> str:
    """A plan.yaml with all of the network in one format."""
    path = folder / "plan.yaml"
    path.write_text(plans.dump(planned(load(ModelRef(str(model))), number, NAIVE)[1]))
    return str(path)


def test_a_file_that_states_wrong_shapes_is_one_line(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    onnx.save(proto, tmp_path / "net.onnx")
    done = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "89")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "the file contradicts itself" in done.err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_departs_from_the_plan_fails(
    convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of a person, which lint refuses: its 7x7 convolution has no FP8 kernel, of which nothing else tells."""
    net = Net("N", 3, 8, 8)
    net.save(tmp_path / "net.onnx", net.conv(net.relu6(net.conv("x", 8, 7)), 4))
    words = ("--plan", plan_of(tmp_path / "net.onnx", "fp8_e4m3", tmp_path), *RTX, "--sm", "89")
    refused = export(convkit, tmp_path, tmp_path / "refused", *words)
    assert refused.code == 2
    assert "Conv 'conv0': its kernel of 7x7 has more than 32 positions" in refused.err
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr("convkit.export.lint.lint", lambda *_words: [])
    done = export(convkit, tmp_path, tmp_path / "out", *words)
    assert done.code == 1
    assert "Conv 'conv0' is planned in fp8_e4m3 and runs in fp32" in done.err
    assert "conv0" in done.out
    report = json.loads((tmp_path / "out/report.json").read_text())["engine"]
    assert [layer["holds"] for layer in report["layers"]] == [False, True]


def test_a_file_that_departs_from_the_plan_fails(
    convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine does what the file says, which is not what was planned."""
    monkeypatch.setattr("convkit.export.typed.typed", lambda model: model)
    words = ("--plan", plan_of(folder / "net.onnx", "fp16", tmp_path), *RTX, "--sm", "89")
    done = export(convkit, folder, tmp_path / "out", *words)
    assert done.code == 1, done.err
    assert "is planned in fp16 and runs in fp32" in done.err
    monkeypatch.undo()
    assert export(convkit, folder, tmp_path / "typed", *words).code == 0


def test_a_plan_may_be_for_a_target_of_the_users_own(
    convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("like: trt-rtx\nabout: the GPU in the shed\n")
    plan = Path(plan_of(folder / "net.onnx", "int8", tmp_path))
    plan.write_text(plan.read_text().replace("trt-rtx", "mine"))
    done = export(convkit, folder, tmp_path / "out", "--target", "mine.yaml", "--sm", "89", "--plan", str(plan))
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out/report.json").read_text())["engine"]["runs_in"] == {"int8": 5}


def test_the_file_alone(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    assert export(convkit, folder, tmp_path / "out", *RTX, "--no-build").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "model.onnx", "report.json"]


BAD = {
    "no compute capability": ((*RTX,), 2, "must be told what to build for; give --sm, one of 75, 80"),
    "one that there is not": ((*RTX, "--sm", "90"), 2, "builds no engine for SM 90; --sm takes one of 75"),
    "a target without engines": (("--sm", "89"), 2, "--sm concerns engines that are built; onnx builds none"),
    "no shape": ((*RTX, "--sm", "89", "--opt-shapes", "x:1y3"), 2, "--opt-shapes 'x:1y3' is no shape"),
    "an input that there is not": ((*RTX, "--sm", "89", "--opt-shapes", "y:1x3"), 2, "no input is called 'y'"),
    "no size": ((*RTX, "--sm", "89", "--workspace", "much"), 2, "'much' is no size; write 15MB or 1GiB"),
    "no end": ((*RTX, "--sm", "89", "--workspace", "inf"), 2, "'inf' is no size"),
    "no number": ((*RTX, "--sm", "89", "--workspace", "nan"), 2, "'nan' is no size"),
    "half a byte": ((*RTX, "--sm", "89", "--workspace", "0.5B"), 2, "'0.5B' is no size"),
    "no plugin": ((*RTX, "--sm", "89", "--plugin", "none.so"), 2, "there is no plugin none.so"),
    "a timing cache": ((*RTX, "--sm", "89", "--timing-cache", "t"), 2, "measures no kernels and keeps no timing cache"),
    "other GPUs": ((*RTX, "--sm", "89", "--hardware-compatible"), 2, "builds for the compute capability of --sm alone"),
    "a level of nothing": (("--builder-level", "0"), 2, "--builder-level concerns engines that are built; onnx builds"),
    "no TensorRT": (("--target", "trt"), 3, "TensorRT is not installed; pip install 'convkit[trt]'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_one_line_and_leave_nothing(convkit: Convkit, folder: Path, tmp_path: Path, case: str) -> None:
    words, code, message = BAD[case]
    done = export(convkit, folder, tmp_path / "out", *words)
    assert (done.code, message in done.err) == (code, True), done.err
    assert not (tmp_path / "out").exists()


def test_words_that_no_engine_is_built_with_are_refused_before_the_network_is_read(
    convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times would be those of a package that keeps some."""
    own = dataclasses.replace(package.PACKAGES["tensorrt_rtx"], times=True)
    monkeypatch.setattr(package, "PACKAGES", {"tensorrt_rtx": own})
    for words, said in (
        (["--hardware-compatible"], "builds for the compute capability of --sm alone"),
        (["--timing-cache", str(tmp_path / "none/times")], "is no file in a folder that is there"),
    ):
        done = export(convkit, tmp_path / "no network", tmp_path / "out", *RTX, "--sm", "89", *words)
        assert (done.code, said in done.err) == (2, True), done.err


def test_what_lint_finds_is_refused_before_anything_is_built(convkit: Convkit, tmp_path: Path) -> None:
    residual().save(tmp_path / "net.onnx", "scores")
    done = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "75")
    assert done.code == 2
    assert "Gemm 'scores': SM 75 has matrix products in fp16 alone" in done.err
    assert not (tmp_path / "out").exists()


def test_a_network_with_a_layer_of_ones_own_needs_a_plugin(convkit: Convkit, tmp_path: Path) -> None:
    path = saved(tmp_path)
    refused = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "89")
    assert (refused.code, "Twice 'own': nobody knows convkit::Twice" in refused.err) == (2, True), refused.err
    assert convkit("lint", str(path), *RTX).code == 1
    assert convkit("lint", str(path), *RTX, "--plugin", str(TWICE)).code == 0
    done = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "89", "--plugin", str(TWICE))
    assert done.code == 0, done.err
    assert "layers with weights: 2 in fp32" in done.out
    assert "the engine does not hold twice.py: call register(trt) of it" in " ".join(done.out.split())
    plugins = [{"file": "twice.py", "digest": record.digest_file(TWICE), "in_engine": False}]
    assert json.loads((tmp_path / "out/report.json").read_text())["engine"]["plugins"] == plugins
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["plugins"] == plugins
    assert manifest["digests"]["model"] == record.digest_file(path)


def test_a_plugin_may_have_a_node_in_onnx_own_domain(convkit: Convkit, tmp_path: Path) -> None:
    """So graph surgeons write them; ONNX's checker knows no such operator."""
    model = network()
    next(node for node in model.graph.node if node.name == "own").domain = ""
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "twice.py").write_text(TWICE.read_text().replace('"1", "convkit"', '"1", ""'))
    assert convkit("lint", str(tmp_path / "net.onnx"), *RTX).code == 1
    words = (*RTX, "--sm", "89", "--plugin", str(tmp_path / "twice.py"))
    done = export(convkit, tmp_path, tmp_path / "out", *words)
    assert done.code == 0, done.err
    assert list(onnx.load(tmp_path / "out/model.onnx").graph.node) == list(model.graph.node)
    refused = export(convkit, tmp_path, tmp_path / "other", "--target", "onnxruntime")
    assert (refused.code, "Twice (node 'own')" in refused.err) == (2, True), refused.err


def test_a_file_with_a_plugin_is_taken_as_it_is(convkit: Convkit, tmp_path: Path) -> None:
    """Bodies and names stay, weights that are kept apart come along, and what has no name gets one."""
    wanted, apart = network(body=True), network(body=True)
    apart.graph.node[0].name = ""
    onnx.save(apart, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    done = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "89", "--plugin", str(TWICE))
    assert done.code == 0, done.err
    written = onnx.load(tmp_path / "out/model.onnx")
    assert (list(written.graph.node), list(written.functions)) == (list(wanted.graph.node), list(wanted.functions))
    weights = [[onnx.numpy_helper.to_array(t) for t in model.graph.initializer] for model in (written, wanted)]
    assert all(map(np.array_equal, *weights))


def test_the_file_alone_is_what_an_engine_is_built_of(convkit: Convkit, tmp_path: Path) -> None:
    """With a layer of the user's own too, which no Model has."""
    saved(tmp_path)
    words = (*RTX, "--sm", "89", "--plugin", str(TWICE))
    for name, more in (("built", ()), ("alone", ("--no-build",))):
        done = export(convkit, tmp_path, tmp_path / name, *words, *more)
        assert done.code == 0, done.err
    assert (tmp_path / "alone/model.onnx").read_bytes() == (tmp_path / "built/model.onnx").read_bytes()
    assert not (tmp_path / "alone/engine.trt").exists()


def test_a_plan_is_for_networks_that_convkit_knows(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder / "net.onnx", "fp16", tmp_path)
    words = (*RTX, "--sm", "89", "--plugin", str(TWICE), "--plan", plan)
    done = export(convkit, folder, tmp_path / "out", *words)
    assert done.code == 0, done.err
    saved(tmp_path)
    refused = export(convkit, tmp_path, tmp_path / "refused", *words)
    assert (refused.code, "convkit.Twice (node 'own')" in refused.err) == (2, True), refused.err


def test_a_plugin_that_fails_is_one_line_and_leaves_nothing(convkit: Convkit, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "wrong.py").write_text("raise ValueError('no')\n")
    (tmp_path / "words.txt").write_text("no plugin\n")
    messages = {
        tmp_path / "wrong.py": "error: plugin wrong.py fails in line 1: ValueError: no; mend the plugin",
        failing(tmp_path, "clone")[0]: "error: plugin failing.py fails as the engine is built, line ",
        tmp_path / "words.txt": "error: TensorRT finds no plugin in ",
        tmp_path / "none.py": "error: there is no plugin ",
    }
    for file, message in messages.items():
        done = export(convkit, tmp_path, tmp_path / "out", *RTX, "--sm", "89", "--plugin", str(file))
        assert (done.code, done.err.splitlines()[-1].startswith(message)) == (2, True), done.err
        assert not (tmp_path / "out").exists()
