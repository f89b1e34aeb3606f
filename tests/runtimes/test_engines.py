"""Every engine on one small net: the numbers are those of eager, inner tensors and profiles are there."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from convkit.compress.errors import ConvkitError
from convkit.runtimes import onnxruntime
from convkit.runtimes.session import Options, Session, open_session
from tests import here
from tests.runtimes import network

REAL = here.engines()
"""All that are at hand; those that run on a GPU are where there is one."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return network.write(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module", params=REAL)
def session(request: pytest.FixtureRequest, net: str) -> Session:
    return open_session(request.param, net)


@pytest.fixture(scope="module")
def eager(net: str) -> Session:
    return open_session("eager", net)


def test_numbers_are_those_of_eager(session: Session, eager: Session) -> None:
    inputs = network.sample()
    ours, reference = session.run(inputs), eager.run(inputs)
    assert list(ours) == ["scores"]
    np.testing.assert_allclose(ours["scores"], reference["scores"], rtol=1e-4, atol=1e-5)


def test_inner_tensors_are_those_of_eager(session: Session, eager: Session) -> None:
    inputs, names = network.sample(), ["pointwise_out", "sum", "scores"]
    ours, reference = session.run(inputs, names), eager.run(inputs, names)
    assert list(ours) == names
    for name in names:
        np.testing.assert_allclose(ours[name], reference[name], rtol=1e-4, atol=1e-5)


def test_outputs_outlive_the_next_run(session: Session) -> None:
    first = session.run(network.sample(seed=1))["scores"]
    kept = first.copy()
    session.run(network.sample(seed=2))
    np.testing.assert_array_equal(first, kept)


def test_inputs_and_outputs_are_known(session: Session) -> None:
    (given,), (made,) = session.inputs, session.outputs
    assert (given.name, given.shape, given.dtype, given.sample) == ("x", (1, 3, 16, 16), "float32", (1, 3, 16, 16))
    assert (made.name, made.dtype) == ("scores", "float32")


@pytest.mark.parametrize("engine", [name for name in REAL if name != "onnxruntime_cuda"])
def test_profile_has_a_time_for_every_conv(engine: str, net: str) -> None:
    session = open_session(engine, net)
    nodes = session.profile(network.sample(), repeats=3)
    convs = [node for node in nodes if "conv" in node.operator.lower()]
    assert len(convs) >= 3
    assert all(node.seconds >= 0 and node.dtype == "float32" for node in convs)
    assert sum(node.seconds for node in nodes) > 0


def test_a_profile_writes_no_second_copy_of_weights_that_lie_apart(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count as the file itself does: a model of 2 GiB is none that one file could hold."""
    apart = {"save_as_external_data": True, "location": "net.bin", "size_threshold": 0}
    onnx.save(onnx.load(net), tmp_path / "net.onnx", **apart)
    for limit, copied in ((2**30, True), ((tmp_path / "net.onnx").stat().st_size + 1, False)):
        monkeypatch.setattr(onnxruntime, "_LARGEST", limit)
        session = onnxruntime.OnnxRuntimeSession(str(tmp_path / "net.onnx"), Options())
        assert session.profile(network.sample(), repeats=1)
        assert (session._origins is not None) == copied


def test_an_unknown_tensor_is_named(session: Session) -> None:
    with pytest.raises(ConvkitError, match="'nowhere'"):
        session.run(network.sample(), ["nowhere"])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"y": np.zeros((1, 3, 16, 16), np.float32)}, "named"),
        ({"x": np.zeros((1, 3, 8, 16), np.float32)}, r"float32\[1, 3, 16, 16\]"),
        ({"x": np.zeros((1, 3, 16, 16), np.float64)}, "float64"),
    ],
)
def test_wrong_inputs_are_the_users_error(session: Session, inputs: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ConvkitError, match=words):
        session.run(inputs)


@pytest.mark.parametrize("engine", REAL)
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04"])
def test_a_broken_model_is_the_users_error(engine: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(content)
    with pytest.raises(ConvkitError, match=r"broken\.onnx"):
        open_session(engine, str(file))


@pytest.mark.parametrize("engine", REAL)
def test_a_missing_model_is_the_users_error(engine: str, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"nowhere\.onnx"):
        open_session(engine, str(tmp_path / "nowhere.onnx"))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_free_dimensions_stay_free(engine: str, tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx", batch="N")
    session = open_session(engine, net)
    assert isinstance(session.inputs[0].shape[0], str)
    assert session.inputs[0].sample == ()
    assert session.run(network.sample(batch=3))["scores"].shape == (3, 10)


def test_openvino_takes_a_fixed_shape(tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx", batch="N")
    session = open_session("openvino", net, Options(shapes={"x": (2, 3, 16, 16)}))
    assert session.inputs[0].sample == (2, 3, 16, 16)


def test_eager_takes_a_factory_of_integers() -> None:
    session = open_session(
        "eager", "tests.nets.words:net", Options(shapes={"tokens": (3, 16)}, dtypes={"tokens": "int64"})
    )
    assert session.inputs[0].dtype == "int64"
    assert session.run({"tokens": np.zeros((3, 16), np.int64)})["output"].shape == (3, 4)


def test_openvino_runs_model_local_functions(net: str, tmp_path: Path) -> None:
    model = onnx.load(net)
    imports = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("convkit", "Rectify", ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("convkit", 1))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Rectify", "convkit"
    onnx.save(model, tmp_path / "local.onnx")
    inputs = network.sample()
    ours = open_session("openvino", str(tmp_path / "local.onnx")).run(inputs)["scores"]
    np.testing.assert_allclose(ours, open_session("onnxruntime", net).run(inputs)["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("knobs", [{"spinning": False}, {"optimization": "none"}, {"optimization": "basic"}])
def test_onnxruntime_knobs_keep_the_numbers(net: str, knobs: dict[str, bool | str]) -> None:
    inputs = network.sample()
    plain = open_session("onnxruntime", net).run(inputs)["scores"]
    turned = open_session("onnxruntime", net, Options(threads=1, **knobs)).run(inputs)["scores"]  # type: ignore[arg-type]
    np.testing.assert_allclose(turned, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{"threads": 0}, {"optimization": "most"}, {"precision": "int3"}])
def test_a_knob_out_of_range_is_the_users_error(fields: dict[str, int | str]) -> None:
    with pytest.raises(ConvkitError, match=next(iter(fields))):
        Options(**fields)  # type: ignore[arg-type]
