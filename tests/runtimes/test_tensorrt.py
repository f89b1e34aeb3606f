"""The session of TensorRT's engines, against a package that is like it: on a GPU tests/runtimes/test_gpu.py has it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from convkit.compress import record
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.runtimes.session import Options, Session, open_session
from tests.compress.network import Net
from tests.runtimes import fake_tensorrt as fake

LAYERS = "\n".join(
    f"Name: {name} + relu, LayerType: CaskConvolution, Inputs: [ {{ Name: x, Location: Device, Dimensions: [1,3,8,8], "
    f'Format/Datatype: {kind} }}], Outputs: [ ], ParameterType: Convolution, Weights: {{"Type": "{kind}", "Count": '
    f'{count}}}, Bias: {{"Type": "Float", "Count": 4}}, StreamId: 0, Metadata: [ONNX Layer: {name}]'
    for name, kind, count in (("conv0", "Float", 108), ("conv2", "Half", 144))
)


def network(batch: int | str = "N") -> onnx.ModelProto:
    """Two convolutions, the second with its input and weight in float16."""
    net = Net(batch, 3, 8, 8)
    first = net.op("Relu", net.conv("x", 4, 3))
    half = net.op("Cast", first, to=onnx.TensorProto.FLOAT16)
    weight = net.weight(net.normal(4, 4, 3, 3).astype(np.float16))
    made = net.op("Conv", half, weight, name="conv2", pads=[1] * 4)
    proto = net.proto(net.op("Cast", made, name="y", to=onnx.TensorProto.FLOAT))
    proto.opset_import[0].version = 22
    return proto


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of the package that is like TensorRT's."""
    onnx.save(network(), tmp_path / "engine.trt")
    return tmp_path / "engine.trt"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    with fake.installed(monkeypatch, LAYERS) as found:
        yield found


@pytest.fixture
def session(engine: Path, registered: list[str]) -> Session:
    assert registered == []
    return open_session("tensorrt", str(engine))


def sample(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)}


def test_it_computes_in_any_batch_that_it_is_built_for(session: Session, engine: Path, registered: list[str]) -> None:
    assert registered == [""]  # of TensorRT's own plugins
    assert [(spec.name, spec.shape, spec.dtype) for spec in session.inputs] == [("x", ("x.0", 3, 8, 8), "float32")]
    assert [(spec.name, spec.dtype) for spec in session.outputs] == [("y", "float32")]
    exact = open_session("onnxruntime", str(_as_onnx(engine)), Options(optimization="all"))
    for batch in (1, 4, 2):
        for seed in (0, 1):
            found = session.run(sample(batch, seed))["y"]
            assert found.shape == (batch, 4, 8, 8)
            np.testing.assert_allclose(found, exact.run(sample(batch, seed))["y"], rtol=2e-3, atol=2e-3)
    assert session.timed(sample(2)) == fake.MS * 1e-3  # type: ignore[attr-defined]


def _as_onnx(engine: Path) -> Path:
    folder = engine.with_name("beside")
    folder.mkdir(exist_ok=True)
    (folder / "net.onnx").write_bytes(engine.read_bytes())
    return folder / "net.onnx"


def test_what_is_outside_its_shapes_is_one_line(session: Session) -> None:
    with pytest.raises(ConvkitError, match=r"input 'x' of 5x3x8x8 is outside the shapes that the engine is built for"):
        session.run(sample(5))
    assert session.run(sample(4))["y"].shape[0] == 4


def test_layers_are_told_as_the_inspector_has_them(session: Session) -> None:
    found = session.profile(sample(1), 3)
    assert [(one.name, one.operator, one.dtype, one.origins) for one in found] == [
        ("conv0 + relu", "CaskConvolution", "fp32", ("conv0",)),
        ("conv2 + relu", "CaskConvolution", "fp16", ("conv2",)),
    ]
    assert {one.seconds for one in found} == {fake.MS * 1e-3}


def test_an_inner_tensor_needs_the_file_that_the_engine_is_of(session: Session) -> None:
    with pytest.raises(ConvkitError, match="no tensor of .* is called 'inner': it is an engine"):
        session.run(sample(1), ["inner"])


def test_an_engine_that_departs_from_the_file_beside_it_is_a_verdict(engine: Path, registered: list[str]) -> None:
    """What it was built of, as `convkit export` leaves it; another's is none of its business."""
    model = network()
    onnx.save(model, engine.with_name("model.onnx"))
    open_session("tensorrt", str(engine)).close()
    wide = Net("N", 3, 8, 8)
    proto = wide.proto(wide.op("Relu", wide.conv(wide.op("Relu", wide.conv("x", 4, 3)), 4, 3, bias=False)))
    onnx.save(proto, engine.with_name("model.onnx"))
    open_session("tensorrt", str(engine)).close()
    manifest = {"digests": {"engine": record.digest_bytes(engine.read_bytes())}}
    engine.with_name("manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VerdictError, match=r"Conv 'conv2' is planned in fp32 and runs in fp16 \(conv2 \+ relu\)"):
        open_session("tensorrt", str(engine))


def test_what_is_no_engine_is_one_line(tmp_path: Path, registered: list[str]) -> None:
    (tmp_path / "engine.trt").write_bytes(b"nonsense")
    with pytest.raises(ConvkitError, match=r"TensorRT refuses .*engine.trt: .*magic tag does not match") as caught:
        open_session("tensorrt", str(tmp_path / "engine.trt"))
    assert "build it with this version: convkit export NET --target trt -o OUT" in caught.value.hint


def test_bytes_and_indices_go_in_and_out(tmp_path: Path, registered: list[str]) -> None:
    net = Net("N", 3, 8, 8)
    net.op("Cast", net.op("Relu", "x"), name="y", to=onnx.TensorProto.UINT8)
    proto = net.proto("y")
    onnx.save(proto, tmp_path / "engine.trt")
    session = open_session("tensorrt", str(tmp_path / "engine.trt"))
    x = {"x": np.full((2, 3, 8, 8), 3.7, np.float32)}
    assert session.run(x)["y"].dtype == np.uint8
    assert set(session.run(x)["y"].flatten().tolist()) == {3}
