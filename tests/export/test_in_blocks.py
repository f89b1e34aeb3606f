"""Long convolutions of series in ONNX Runtime: in blocks they make the same numbers, of a file that is no larger."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy import signal
from torch import nn

from convkit.compress.convs.sgconv import GConv
from convkit.compress.model import ModelRef, parse_shape
from convkit.compress.sources import factory
from convkit.export import exporter
from convkit.export.in_blocks import in_blocks
from convkit.runtimes.session import Options, open_session

FEATURES = 5


def convolution(taps: int, begin: int = 0, **told: int) -> nn.Conv1d:
    torch.manual_seed(taps + begin)
    layer = nn.Conv1d(FEATURES, FEATURES, taps, groups=FEATURES, **told)
    nn.init.normal_(layer.weight, std=taps**-0.5)
    return layer


def written(network: nn.Module, shape: str, engine: str = "onnxruntime") -> onnx.ModelProto:
    model = factory.from_module(network, ModelRef("nets:build", shapes=dict([parse_shape(shape)])))
    made = exporter.of_engine(engine).proto(model, exporter.OPSET)
    onnx.checker.check_model(made, full_check=True)
    return made


def kernels(made: onnx.ModelProto) -> list[int]:
    """Taps of the convolutions, in the graph and in functions."""
    nodes = [node for holder in (made.graph, *made.functions) for node in holder.node if node.op_type == "Conv"]
    return [next(list(a.ints)[-1] for a in node.attribute if a.name == "kernel_shape") for node in nodes]


def run(made: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {made.graph.input[0].name: given})[0])


def series(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("taps", "begin", "end", "length"),
    [
        (128, 127, 0, 128),  # causal
        (129, 64, 64, 200),  # in both directions
        (200, 0, 0, 331),  # where it fits only
        (131, 3, 5, 160),
        (300, 299, 150, 97),  # longer than the series, and more comes out than went in
        (160, 0, 200, 48),
    ],
)
def test_blocks_make_what_a_sum_over_taps_makes(taps: int, begin: int, end: int, length: int) -> None:
    """Beside scipy, in float64; three samples, whose first is the same alone."""
    layer = convolution(taps)
    padded = nn.Sequential(nn.ConstantPad1d((begin, end), 0.0), layer)
    made = written(padded, f"input:Nx{FEATURES}x{length}")
    assert max(kernels(made)) < taps
    given = series(3, FEATURES, length)
    wide = np.pad(given.astype(np.float64), ((0, 0), (0, 0), (begin, end)))
    assert layer.bias is not None
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    wanted = np.stack(
        [
            [
                signal.correlate(row, own[0], mode="valid") + more
                for row, own, more in zip(sample, weight, bias, strict=True)
            ]
            for sample in wide
        ]
    )
    found = run(made, given)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.array_equal(found[:1], run(made, given[:1]))


def test_a_free_length_stays_free() -> None:
    layer = convolution(128, padding=64, bias=False)
    made = written(nn.Sequential(layer), f"input:Nx{FEATURES}xL=200")
    for length in (1, 15, 16, 17, 129, 400):
        given = series(2, FEATURES, length)
        with torch.no_grad():
            wanted = layer.double()(torch.from_numpy(given).double()).numpy()
        layer.float()
        found = run(made, given)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_free_length_that_may_be_too_short_is_the_engines_to_refuse() -> None:
    layer = convolution(128, padding=60)
    assert kernels(written(nn.Sequential(layer), f"input:Nx{FEATURES}xL=200")) == [128]
    assert max(kernels(written(nn.Sequential(layer), f"input:Nx{FEATURES}x200"))) < 128


def assert_in_blocks(plain: onnx.ModelProto) -> None:
    """That it is edited into one in blocks, which makes the same numbers."""
    given = series(2, FEATURES, 160)
    wanted = run(plain, given)
    made = in_blocks(plain)
    onnx.checker.check_model(made, full_check=True)
    assert max(kernels(made)) < 128
    assert np.abs(run(made, given) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_weights_that_are_stored_in_few_bits_are_those_of_blocks_too() -> None:
    layer = convolution(128, padding=64)
    plain = written(nn.Sequential(layer), f"input:Nx{FEATURES}x160", "onnx")
    weight = next(tensor for tensor in plain.graph.initializer if len(tensor.dims) == 3)
    few = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16), "few")
    cast = onnx.helper.make_node("Cast", ["few"], [weight.name], to=onnx.TensorProto.FLOAT)
    plain.graph.initializer.remove(weight)
    plain.graph.initializer.append(few)
    plain.graph.node.insert(0, cast)
    assert_in_blocks(plain)


def test_names_that_are_taken_stay_those_of_who_has_them() -> None:
    plain = written(nn.Sequential(nn.ReLU(), convolution(128, padding=64)), f"input:Nx{FEATURES}x160", "onnx")
    relu, conv = (next(node for node in plain.graph.node if node.op_type == kind) for kind in ("Relu", "Conv"))
    relu.output[0] = conv.input[0] = f"{conv.output[0]}/blocks"
    del plain.graph.value_info[:]
    assert_in_blocks(plain)


def test_one_channel_into_many_is_no_depthwise_convolution() -> None:
    assert kernels(written(nn.Sequential(nn.Conv1d(1, 4, 128, padding=64)), "input:Nx1x160")) == [128]


def test_a_novel_layer_stays_one_node_and_its_file_as_small() -> None:
    torch.manual_seed(0)
    layer = GConv(8, 512)
    made, plain = (written(layer, "u:Nx8x512", engine) for engine in ("onnxruntime", "onnx"))
    assert [node.op_type for node in made.graph.node] == ["Sgconv"]
    assert max(kernels(made)) == 512 // 16 + 1
    assert max(kernels(plain)) == 512
    assert made.ByteSize() < plain.ByteSize() + 8_000
    given = series(2, 8, 512)
    with torch.no_grad():
        wanted = layer.double()(torch.from_numpy(given).double()).numpy()
    assert np.abs(run(made, given) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_engine_works_weights_out_once(tmp_path: Path) -> None:
    """What it opened has no operator left that makes them, and no size to work out."""
    made = written(nn.Sequential(convolution(128, padding=64)), f"input:1x{FEATURES}x160")
    assert "Gather" in {node.op_type for node in made.graph.node}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    opened = {node.op_type for node in onnx.load(tmp_path / "opened.onnx").graph.node}
    assert opened <= {"Pad", "Reshape", "Transpose", "Conv", "Slice"}


def test_profiles_and_inner_tensors_find_the_layer(tmp_path: Path) -> None:
    network = nn.Sequential(nn.ReLU(), convolution(128, padding=64), nn.ReLU())
    made = written(network, f"input:1x{FEATURES}x160")
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    session = open_session("onnxruntime", str(path), Options(threads=1))
    given = {"input": series(1, FEATURES, 160)}
    times = session.profile(given, 3)
    plain = written(network, f"input:1x{FEATURES}x160", "onnx")
    node = next(node for node in plain.graph.node if node.op_type == "Conv")
    found = [time for time in times if node.name in time.origins]
    assert [time.operator for time in found if "Conv" in time.operator]
    inner = session.run(given, [node.output[0]])[node.output[0]]
    with torch.no_grad():
        wanted = network[:2](torch.from_numpy(given["input"])).numpy()
    assert np.abs(inner - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_other_convolutions_stay_as_they_are() -> None:
    """Short, strided, dilated, dense and of other types; and for other engines."""
    for layer in (
        convolution(127),
        convolution(128, stride=2),
        convolution(128, dilation=2),
        nn.Conv1d(FEATURES, FEATURES, 128),
    ):
        assert kernels(written(nn.Sequential(layer), f"input:Nx{FEATURES}x400")) == list(layer.kernel_size)
    double = nn.Sequential(convolution(128)).double()
    assert kernels(written(double, f"input:float64:Nx{FEATURES}x400")) == [128]
    plain = nn.Sequential(convolution(128))
    assert kernels(written(plain, f"input:Nx{FEATURES}x400", "openvino")) == [128]


def test_weights_that_would_fill_the_memory_stay_taps() -> None:
    features = 1 << 12
    layer = nn.Conv1d(features, features, 1024, groups=features, padding=512, bias=False)
    assert kernels(written(nn.Sequential(layer), f"input:1x{features}x16")) == [1024]
