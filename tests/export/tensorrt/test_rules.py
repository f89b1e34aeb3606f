"""What lint says of a layer for a compute capability is what the engine does: refused, run in float, or as planned."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.compress.errors import ConvkitError
from convkit.export import lint
from convkit.export.tensorrt import build, precision
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Settings
from tests.compress.network import Net, quantized
from tests.export.tensorrt.layers import Layer
from tests.export.tensorrt.planned import TARGET, written

RTX = "tensorrt_rtx"
REFUSED = "refused"
CODES = {
    "3x3": Layer("Conv", "int8"),
    "pointwise": Layer("Conv", "int8", kernel=(1, 1), inputs=64, outputs=64),
    "of an image": Layer("Conv", "int8", kernel=(7, 7), inputs=3, outputs=32, stride=2),
    "depthwise": Layer("Conv", "int8", group=16),
    "grouped": Layer("Conv", "int8", "fp16", group=4),
    "odd": Layer("Conv", "int8", "fp16", inputs=5, outputs=7),
    "1-D": Layer("Conv", "int8", kernel=(3,)),
    "3-D": Layer("Conv", "int8", "fp16", kernel=(3, 3, 3)),
}


def found(layer: Layer, sm: int, folder: Path) -> tuple[list[str], str | None]:
    """The rules that it breaks, and what it runs in."""
    path = layer.save(folder / "net.onnx")
    broken = [one.rule for one in lint.lint(onnx.load(path), RTX, lint.Device(sm)) if one.node == "layer"]
    try:
        built = build.build(RTX, path, Settings(sm=sm))
    except ConvkitError as error:
        assert f"refuses {path.name}" in error.message  # noqa: PT017 - what is refused is a result
        return broken, REFUSED
    (layer_found,) = precision.compare(onnx.load(path), built.layers)
    return broken, layer_found.ran


@pytest.mark.parametrize("name", CODES)
def test_sm_75_runs_no_convolution_on_codes(name: str, tmp_path: Path) -> None:
    """Whatever its channels, kernel, stride and groups: it runs in what the codes are dequantized to. SM 80 does."""
    layer = CODES[name]
    assert found(layer, 75, tmp_path) == (["turing"], layer.between)
    assert found(layer, 80, tmp_path) == ([], "int8")


@pytest.mark.parametrize("between", ["fp32", "fp16"])
@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_sm_75_has_products_where_their_codes_are_dequantized_to_fp16(
    operator: str, between: str, tmp_path: Path
) -> None:
    layer = Layer(operator, "int8", between, kernel=())
    assert found(layer, 75, tmp_path) == (([], "int8") if between == "fp16" else (["turing"], REFUSED))
    assert found(layer, 80, tmp_path) == ([], "int8")


@pytest.mark.parametrize("number", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("operator", "dimensions"), [("Conv", 3), ("ConvTranspose", 3), ("Conv", 2), ("ConvTranspose", 2), ("Gemm", 0)]
)
def test_sm_75_has_products_and_3d_convolutions_in_fp16_alone(
    operator: str, dimensions: int, number: str, tmp_path: Path
) -> None:
    layer = Layer(operator, number, kernel=(3,) * dimensions)
    missing = number == "fp32" and dimensions != 2
    assert found(layer, 75, tmp_path) == ((["turing"], REFUSED) if missing else ([], number))


@pytest.mark.parametrize("sm", [80, 89, 120])
@pytest.mark.parametrize("number", ["fp32", "fp16", "bf16"])
def test_no_transposed_convolution_is_in_bf16(number: str, sm: int, tmp_path: Path) -> None:
    layer = Layer("ConvTranspose", number, kernel=(2, 2), stride=2)
    assert found(layer, sm, tmp_path) == ((["transposed"], REFUSED) if number == "bf16" else ([], number))


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_sm_75_has_no_bf16(kernel: tuple[int, ...], tmp_path: Path) -> None:
    layer = Layer("Conv" if kernel else "MatMul", "bf16", kernel=kernel)
    assert found(layer, 75, tmp_path) == (["types"] if kernel else ["turing", "types"], REFUSED)
    assert found(layer, 80, tmp_path) == ([], "bf16")


@pytest.mark.parametrize("number", ["int8", "fp8_e4m3"])
@pytest.mark.parametrize(
    ("inputs", "size", "by_channel", "runs"),
    [(4, 1, True, False), (5, 1, True, True), (4, 2, True, True), (1, 1, True, False), (4, 1, False, True)],
)
def test_few_products_for_one_position_run_in_float(
    number: str, inputs: int, size: int, tmp_path: Path, *, by_channel: bool, runs: bool
) -> None:
    layer = Layer("Conv", number, kernel=(1, 1), inputs=inputs, outputs=96, size=size, by_channel=by_channel)
    assert found(layer, 89, tmp_path) == (([], number) if runs else (["single_positions"], "fp32"))


@pytest.mark.parametrize(("number", "held"), [("int8", "fp8_e4m3"), ("fp8_e4m3", "int8"), ("int8", "int4")])
@pytest.mark.parametrize("operator", ["Conv", "MatMul"])
def test_codes_of_two_types_have_no_kernel(operator: str, number: str, held: str, tmp_path: Path) -> None:
    layer = Layer(operator, number, held=held, kernel=(3, 3) if operator == "Conv" else ())
    broken, ran = found(layer, 89, tmp_path)
    assert broken == ["placement"]
    assert ran in ("fp32", REFUSED)


def test_an_output_of_bytes_is_built(tmp_path: Path) -> None:
    """As lint has it: a picture's numbers are cast behind all else."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu")]
    nodes.append(helper.make_node("Cast", ["r"], ["y"], "bytes", to=TensorProto.UINT8))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 3, 8, 8])
    file = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    onnx.save(file, tmp_path / "net.onnx")
    assert lint.lint(file, RTX, lint.Device(89)) == []
    assert build.build(RTX, tmp_path / "net.onnx", Settings(sm=89)).engine


@pytest.mark.parametrize("sm", [75, 89])
def test_a_plan_has_transposed_convolutions_in_fp16(sm: int, tmp_path: Path) -> None:
    """All layers in fp16, or integers around it: the one format that it has a kernel for."""
    net = Net("N", 8, 8, 8)
    weight = net.weight(net.normal(8, 8, 2, 2, gain=0.3))
    up = net.op("ConvTranspose", net.conv("x", 8, 3), weight, name="up", strides=[2, 2], kernel_shape=[2, 2])
    model = net.model(net.conv(up, 4, 3, channels=8))
    for number, kernels in (("fp16", ["fp16"] * 3), ("int8", ["int8", "fp32", "int8"])):
        if sm == 75 and number == "int8":
            continue
        path = written(model, number, tmp_path / number)
        asserted = build_and_assert(RTX, path, Settings(sm=sm)).findings
        assert [one.planned for one in asserted] == kernels
        assert all(one.holds for one in asserted), [one.words for one in asserted]
    usual = quantized(model, TARGET)[1].layers
    assert {name: (layer.weight, layer.activation) for name, layer in usual.items()} == {
        "conv0": ("int8", "int8"),
        "up": ("fp16", "fp16"),
        "conv2": ("int8", "int8"),
    }


@pytest.mark.parametrize("size", ["N", 2])
def test_sizes_of_some_axes_need_sizes_that_are_known(size: str | int, tmp_path: Path) -> None:
    """As the builder has it."""
    nodes = [helper.make_node("Resize", ["x", "", "", "s"], ["y"], "resize", axes=[2, 3], mode="linear")]
    tensors = {"s": numpy_helper.from_array(np.array([9, 7]), "s")}
    sizes = [size, 4, 5, 6], [size, 4, 9, 7]
    inputs, outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip("xy", sizes, strict=True)
    )
    graph = helper.make_graph(nodes, "graph", [inputs], [outputs], list(tensors.values()))
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(file, tmp_path / "net.onnx")
    found = [one.rule for one in lint.lint(file, RTX, lint.Device(89))]
    if size == "N":
        assert found == ["resize_sizes"]
        with pytest.raises(ConvkitError, match="refuses"):
            build.build(RTX, tmp_path / "net.onnx", Settings(sm=89))
    else:
        assert found == []
        assert build.build(RTX, tmp_path / "net.onnx", Settings(sm=89)).engine
