"""Engines are built without a GPU, in a process of their own, and every layer runs in what the file plans."""

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.export import lint
from convkit.export.tensorrt import build, package, precision
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Profile, Settings
from convkit.runtimes.session import Options, open_session
from tests.compress.network import Net, residual
from tests.export.tensorrt.planned import NAIVE, planned, written

Files = Callable[[str], Path]
RTX = "tensorrt_rtx"
FORMATS = ("fp32", "fp16", "bf16", "int8", "fp8_e4m3")
SMS = package.PACKAGES[RTX].sms
REFUSED = {
    ("fp32", 75): "Gemm 'scores': SM 75 has matrix products in fp16 alone",
    ("int8", 75): "SM 75 has no convolutions on codes and runs it in float",
    ("bf16", 75): "it has BF16, SM 75 has none",
} | {("fp8_e4m3", sm): f"it has FP8, SM {sm} has none" for sm in (75, 80, 86)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The residual network with every layer in a format, by its name."""
    root = tmp_path_factory.mktemp("files")

    @functools.cache
    def made(number: str) -> Path:
        return written(residual().model("scores"), number, root / number)

    return made


@pytest.mark.parametrize("sm", SMS)
@pytest.mark.parametrize("number", FORMATS)
def test_every_layer_runs_as_planned_or_is_refused_beforehand(files: Files, number: str, sm: int) -> None:
    refused = REFUSED.get((number, sm))
    if refused is None:
        found = build_and_assert(RTX, files(number), Settings(sm=sm))
        assert [(one.planned, one.ran) for one in found.findings] == [(number, number)] * 5
        assert found.built.engine
    else:
        with pytest.raises(ConvkitError, match="TensorRT for RTX does not take this network") as caught:
            build_and_assert(RTX, files(number), Settings(sm=sm))
        assert refused in str(caught.value)
        with pytest.raises(ConvkitError):  # what was refused beforehand does not build either
            build.build(RTX, files(number), Settings(sm=sm))


@pytest.mark.parametrize(("kernel", "runs"), [(5, True), (6, False)])
@pytest.mark.parametrize("group", [1, 16])
def test_fp8_has_kernels_of_32_positions(tmp_path: Path, kernel: int, group: int, *, runs: bool) -> None:
    """What the rule of lint says beforehand is what the engine does: it runs a larger one in float, without a word.

    convkit's own plans leave that one in float.
    """
    net = Net("N", 16, 12, 12)
    model = net.model(net.conv("x", 16, kernel, group=group))
    own = written(model, "fp8_e4m3", tmp_path / "own")
    (kept,) = build_and_assert(RTX, own, Settings(sm=89)).findings
    assert (kept.planned, kept.holds) == ("fp8_e4m3" if runs else "fp32", True)
    path = written(model, "fp8_e4m3", tmp_path / "net", NAIVE)
    found = [finding.rule for finding in lint.lint(onnx.load(path), RTX, lint.Device(89))]
    assert found == ([] if runs else ["fp8_kernels"])
    (layer,) = precision.compare(onnx.load(path), build.build(RTX, path, Settings(sm=89)).layers)
    assert (layer.planned, layer.ran, layer.holds) == ("fp8_e4m3", "fp8_e4m3" if runs else "fp32", runs)


@pytest.mark.parametrize("number", ["fp32", "fp16", "bf16", "int8", "fp8_e4m3"])
def test_what_excites_after_a_squeeze_runs_as_planned(number: str, tmp_path: Path) -> None:
    """Of 4 channels and one position: the engine writes it out as products and sums, on codes in float, so that plans
    leave it in float."""
    net = Net("N", 96, 8, 8)
    squeezed = net.relu6(net.conv(net.op("GlobalAveragePool", "x"), 4, 1))
    excited = net.op("Sigmoid", net.conv(squeezed, 96, 1))
    model = net.model(net.op("Mul", "x", excited))
    found = build_and_assert(RTX, written(model, number, tmp_path / "net"), Settings(sm=89)).findings
    assert all(one.holds for one in found), [one.words for one in found]
    kept = number if number not in ("int8", "fp8_e4m3") else "fp32"
    assert [one.planned for one in found] == [number, kept]


def test_shapes_of_sizes_that_are_fixed_are_refused(files: Files) -> None:
    shape = {"x": (8, 3, 8, 8)}
    proto = onnx.load(files("fp32"))
    build._shapes(proto, Profile(shape, shape, shape))
    dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
    dim.dim_value = 1
    with pytest.raises(ConvkitError, match="input 'x' is 1x3x8x8 in the file, not 8x3x8x8"):
        build._shapes(proto, Profile(shape, shape, shape))
    dim.dim_value = -1
    assert build._shapes(proto, Profile({}, {}, {})).usual == {"x": (1, 3, 8, 8)}


def test_free_sizes_need_shapes(files: Files, tmp_path: Path) -> None:
    net = Net("N", 3, "height", 8)
    path = Path(net.save(tmp_path / "net.onnx", net.conv("x", 4, 3)))
    with pytest.raises(ConvkitError, match="input 'x' is \\?x3x\\?x8: its sizes are free"):
        build.build(RTX, path, Settings(sm=89))
    with pytest.raises(ConvkitError, match="no input is called 'y'"):
        build.build(RTX, path, Settings(sm=89, profile=Profile({"y": (1,)}, {"y": (1,)}, {"y": (1,)})))
    shapes = {"x": (1, 3, 8, 8)}
    assert build.build(RTX, path, Settings(sm=89, profile=Profile(shapes, shapes, {"x": (4, 3, 64, 8)}))).engine


def test_a_symbol_has_one_size(tmp_path: Path) -> None:
    """That which a shape gives it, in every input; else the usual batch."""
    net = Net("N", 3, 8, 8)
    proto = net.proto(net.op("Add", net.conv("x", 4), "other", name="sum"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["N", 4, 8, 8]))
    one = {"x": (8, 3, 8, 8)}
    assert build._shapes(proto, Profile(one, one, one)).most == {"x": (8, 3, 8, 8), "other": (8, 4, 8, 8)}
    assert build._shapes(proto, Profile(batch=2)).usual == {"x": (2, 3, 8, 8), "other": (2, 4, 8, 8)}
    onnx.save(proto, tmp_path / "net.onnx")
    assert build.build(RTX, tmp_path / "net.onnx", Settings(sm=89, profile=Profile(one, one, one))).engine


@pytest.mark.parametrize("settings", [Settings(sm=89, workspace=1 << 26), Settings(sm=89, level=0)])
def test_a_build_takes_what_is_asked_of_it(files: Files, settings: Settings) -> None:
    found = build_and_assert(RTX, files("int8"), settings)
    assert found.built.engine
    assert all(one.holds for one in found.findings)


def test_what_its_bindings_cannot_make_is_one_line(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a driver, say: they raise a TypeError, and its library says why."""
    (tmp_path / "tensorrt_rtx.py").write_text(
        "from types import SimpleNamespace\n"
        "__version__ = '1.0'\n"
        "class ILogger:\n    pass\n"
        "def Builder(log):\n"
        "    log.log(SimpleNamespace(name='ERROR'), 'CUDA initialization failure with error: 35')\n"
        "    raise TypeError('factory function returned nullptr')\n"
    )
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    with pytest.raises(ConvkitError, match="refuses model.onnx: factory function .*CUDA initialization failure") as no:
        build.build(RTX, files("fp32"), Settings(sm=89))
    assert "driver" in no.value.hint


def test_a_timing_cache_is_refused_where_it_is_of_no_use(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="measures no kernels and keeps no timing cache"):
        build.build(RTX, files("int8"), Settings(sm=89, cache=str(tmp_path / "timing.cache")))


def test_what_crashes_or_hangs_the_builder_is_one_line(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConvkitError, match="did not end within 0.01 s") as caught:
        build.build(RTX, files("fp32"), Settings(sm=89), timeout=0.01)
    assert caught.value.hint.startswith("give a lower --builder-level")
    # The child imports the package by name: one that kills its process stands in front of the real one.
    (tmp_path / "tensorrt_rtx.py").write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n")
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    with pytest.raises(ConvkitError, match="the builder of TensorRT for RTX crashed \\(SIGSEGV\\)"):
        build.build(RTX, files("fp32"), Settings(sm=89))


def test_a_missing_package_names_the_line_that_installs_it(files: Files) -> None:
    with pytest.raises(NotAvailableError, match="TensorRT is not installed") as caught:
        build_and_assert("tensorrt", files("fp32"), Settings())
    assert "pip install 'convkit[trt]'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sm", "message"), [(None, "must be told what to build for"), (90, "builds no engine for SM 90")]
)
def test_a_compute_capability_that_there_is_not(files: Files, sm: int | None, message: str) -> None:
    with pytest.raises(ConvkitError, match=message) as caught:
        build.build(RTX, files("fp32"), Settings(sm=sm))
    assert "75, 80, 86, 89, 120, 121" in str(caught.value.hint)


def test_a_network_that_the_parser_refuses_names_the_node(tmp_path: Path) -> None:
    net = Net("N", 4, 8, 8)
    net.split("Unique", ["x"], 1, "unique")
    path = Path(net.save(tmp_path / "net.onnx", "unique"))
    with pytest.raises(ConvkitError, match="refuses net.onnx.*Unique 'unique'"):
        build.build(RTX, path, Settings(sm=89))


def test_an_operator_without_a_plugin_does_not_crash_the_builder(tmp_path: Path) -> None:
    """The parser looks for a plugin, for which it opens its library by a name that the package lacks."""
    node = onnx.helper.make_node("Novel", ["x"], ["y"], "novel", domain="some.where")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "net", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("some.where", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "net.onnx")
    with pytest.raises(ConvkitError, match="refuses net.onnx.*Novel 'novel'"):
        build.build(RTX, tmp_path / "net.onnx", Settings(sm=89))
    with pytest.raises(ConvkitError, match="nobody knows some.where::Novel"):
        build_and_assert(RTX, tmp_path / "net.onnx", Settings(sm=89))


def test_a_library_that_is_no_plugin_is_one_line(files: Files, tmp_path: Path) -> None:
    library = tmp_path / "plugin.so"
    library.write_bytes(b"nonsense")
    with pytest.raises(ConvkitError, match="finds no plugin in"):
        build.build(RTX, files("fp32"), Settings(sm=89, plugins=(str(library),)))


def test_the_same_network_is_the_same_file_and_engine(files: Files, tmp_path: Path) -> None:
    again = written(residual().model("scores"), "int8", tmp_path / "again")
    assert again.read_bytes() == files("int8").read_bytes()
    first, other = (build.build(RTX, path, Settings(sm=89)).engine for path in (again, files("int8")))
    assert first == other


@pytest.mark.parametrize("number", ["int8", "fp8_e4m3", "fp16"])
def test_onnxruntime_computes_the_same_numbers(files: Files, number: str) -> None:
    """Those of the simulation, from the very file that the engine is built of."""
    model, _ = planned(residual().model("scores"), number)
    x = np.random.default_rng(5).standard_normal((8, 3, 8, 8)).astype(np.float32)
    session = open_session("onnxruntime", str(files(number)), Options(optimization="basic"))
    with torch.no_grad():
        wanted = model({"x": torch.from_numpy(x)})["scores"].numpy()
    found = session.run({"x": x})["scores"]
    assert ((found - wanted) ** 2).sum() <= 1e-5 * (wanted**2).sum()
