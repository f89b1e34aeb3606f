"""Analysis: whole nets against torch's counter, single operators by hand, quantized files by their stored bytes."""

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from convkit.compress.analysis import Analysis, LayerAnalysis, analyse
from convkit.compress.model import InputShape, Model, ModelRef, load, sample_inputs
from tests.command_line import Convkit

FLOAT = np.float32
IMAGE = (1, 3, 224, 224)


def _model(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int]) -> Model:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    proto.ir_version = 10
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "net.onnx")
    return load(ModelRef(str(folder / "net.onnx")))


def _layers(model: Model) -> dict[str, LayerAnalysis]:
    return {layer.operator: layer for layer in analyse(model).layers}


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(FLOAT)


@pytest.fixture
def small(tmp_path: Path) -> Model:
    """Depthwise conv, ReLU, pointwise conv, global pooling, classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c"], "second", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head", transB=1),
    ]
    constants = {"w1": _random(8, 1, 3, 3), "b1": _random(8), "w2": _random(16, 8, 1, 1)}
    constants |= {"w3": _random(10, 16), "b3": _random(10)}
    return _model(tmp_path, nodes, constants, [1, 8, 6, 6])


def test_a_net_by_hand(small: Model) -> None:
    found = analyse(small)
    rows = {layer.kind: layer for layer in found.layers}
    depthwise = rows["depthwise conv"]
    assert depthwise.inputs == ((1, 8, 6, 6),)
    assert depthwise.output == (1, 8, 6, 6)
    assert (depthwise.parameters, depthwise.macs, depthwise.activations) == (80, 8 * 36 * 9, 288)
    assert depthwise.bytes == 4 * (288 + 80 + 288)
    assert depthwise.intensity == pytest.approx(2 * 8 * 36 * 9 / (4 * 656))
    assert (rows["pointwise conv"].macs, rows["pointwise conv"].parameters) == (16 * 9 * 8, 128)
    assert (rows["linear"].macs, rows["linear"].parameters) == (160, 170)
    assert rows["layout"].bytes == 0
    assert found.total() == {
        "layers": 6,
        "parameters": 378,
        "macs": 8 * 36 * 9 + 16 * 9 * 8 + 160,
        "activations": 288 + 288 + 144 + 16 + 16 + 10,
        "bytes": sum(layer.bytes for layer in found.layers),
        "intensity": pytest.approx(2 * (8 * 36 * 9 + 16 * 9 * 8 + 160) / sum(layer.bytes for layer in found.layers)),
    }


def test_kinds_add_up_and_the_digest_stays(small: Model) -> None:
    found = analyse(small)
    for measure in ("layers", "parameters", "macs", "activations", "bytes"):
        assert sum(total[measure] for total in found.kinds().values()) == found.total()[measure]
    assert found.model == small.digest
    assert json.loads(json.dumps(found.as_dict()))["model"] == small.digest


def test_macs_are_those_of_torchs_counter(small: Model) -> None:
    with FlopCounterMode(display=False) as counter:
        small(sample_inputs(small.inputs))
    assert 2 * analyse(small).total()["macs"] == counter.get_total_flops()


def test_a_shared_weight_is_one_parameter(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["y"], "second", pads=[1, 1, 1, 1]),
    ]
    found = analyse(_model(tmp_path, nodes, {"w": _random(4, 4, 3, 3)}, [1, 4, 5, 5]))
    assert [layer.parameters for layer in found.layers] == [144, 0]
    assert found.layers[0].bytes == found.layers[1].bytes


def test_scales_and_limits_are_no_parameters(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["a"]),
        helper.make_node("Mul", ["a", "sixth"], ["b"]),
        helper.make_node("Mul", ["b", "gamma"], ["y"]),
    ]
    constants = {"low": np.array(0, FLOAT), "high": np.array(6, FLOAT), "sixth": np.array(1 / 6, FLOAT)}
    found = analyse(_model(tmp_path, nodes, {**constants, "gamma": _random(4, 1, 1)}, [1, 4, 2, 2]))
    assert [layer.parameters for layer in found.layers] == [0, 0, 4]


def test_picking_reads_what_it_writes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["x", "rows"], ["y"], axis=1)]
    (layer,) = analyse(_model(tmp_path, nodes, {"rows": np.array([1, 3])}, [1, 1000, 4])).layers
    assert layer.bytes == 4 * 8 + 4 * 8 + 2 * 8


def _quantized(folder: Path) -> Model:
    """x -Q-DQ- conv with 8-bit weights -Q-DQ- relu."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["bq", "bs", "bz"], ["b"], axis=0),
        helper.make_node("Conv", ["xd", "w", "b"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"]),
        helper.make_node("Relu", ["cd"], ["y"]),
    ]
    constants = {
        "s": np.array(0.1, FLOAT),
        "z": np.array(128, np.uint8),
        "wq": np.ones((8, 4, 1, 1), np.int8),
        "ws": np.ones(8, FLOAT),
        "wz": np.zeros(8, np.int8),
        "bq": np.ones(8, np.int32),
        "bs": np.ones(8, FLOAT),
        "bz": np.zeros(8, np.int32),
    }
    return _model(folder, nodes, constants, [1, 4, 5, 5])


def test_a_quantized_file_counts_what_it_stores(tmp_path: Path) -> None:
    rows = _layers(_quantized(tmp_path))
    conv = rows["Conv"]
    assert conv.kind == "pointwise conv"
    assert (conv.parameters, conv.macs) == (32 + 8, 8 * 25 * 4)
    assert conv.bytes == 100 + 32 + 4 * 8 + 200
    assert conv.inputs == ((1, 4, 5, 5),)
    assert rows["Relu"].bytes == 200 + 4 * 200


def test_conversions_at_the_border_move_and_fused_ones_do_not(tmp_path: Path) -> None:
    found = [layer for layer in analyse(_quantized(tmp_path)).layers if layer.kind == "quantization"]
    assert [layer.bytes > 100 for layer in found] == [True, False, False, False]


def test_inspect_prints_and_says_json(small: Model, tmp_path: Path, convkit: Convkit) -> None:
    words = ("inspect", "-m", str(tmp_path / "net.onnx"))
    table = convkit(*words)
    assert table.code == 0
    assert "depthwise conv" in table.out
    assert "total" in table.out
    text = json.loads(convkit(*words, "--json", "--sort", "bytes", "--top", "2").out)
    assert text["schema_version"] == 1
    assert len(text["layers"]) == 2
    assert text["layers"][0]["bytes"] == max(layer.bytes for layer in analyse(small).layers)
    assert text["total"]["parameters"] == 378
    assert convkit("inspect", "-m", str(tmp_path / "none.onnx")).code == 2


@pytest.mark.parametrize(
    ("net", "args", "parameters", "macs"),
    [
        # As their papers' reference implementations count them at 224x224.
        ("resnet", {"depth": 18}, 11_689_512, 1_814_073_344),
        ("resnet", {"depth": 50}, 25_557_032, 4_089_184_256),
        ("mobilenet_v2", {}, 3_504_872, 300_774_272),
        ("efficientnet", {}, 5_288_548, 385_814_752),
    ],
)
def test_published_figures(net: str, args: dict[str, int], parameters: int, macs: int) -> None:
    factory = importlib.import_module(f"tests.nets.{net}").net
    (name,) = inspect.signature(factory(**args).forward).parameters
    found = analyse(load(ModelRef(f"tests.nets.{net}:net", args=args, shapes={name: InputShape(IMAGE, IMAGE)})))
    assert found.total()["parameters"] == parameters
    assert found.total()["macs"] == macs


def test_an_empty_choice_has_no_intensity() -> None:
    assert Analysis("", "", (), ()).total()["intensity"] == 0
