"""Layers in fp16 and bf16 stand in the file in these types, with the numbers of the simulation."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from convkit.compress import simulate
from convkit.compress import target as targets
from convkit.compress.model import Model
from convkit.export.onnx import to_onnx
from convkit.export.typed import typed
from tests.compress.network import Net, batches, residual
from tests.export.tensorrt import planned as tensorrt

TARGET = targets.load("trt-rtx")
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
LAYERS = ("Conv", "Gemm")


def planned(model: Model, option: str, others: Mapping[str, str | None] | None = None) -> Model:
    return tensorrt.planned(model, option, TARGET, others)[0]


def written(model: Model) -> onnx.ModelProto:
    made = typed(to_onnx(model, TARGET.opset))
    onnx.checker.check_model(made, full_check=True)
    return made


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of what each layer reads, by its name; weights and biases have the same."""
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in LAYERS:
            own = {types[name] for name in node.input}
            assert len(own) == 1, (node.name, own)
            found[node.name] = own.pop()
    return found


def decibels(model: Model, file: onnx.ModelProto) -> float:
    """Of what ONNX Runtime computes against the simulation."""
    x = batches(model, count=1, seed=7)[0]
    with torch.no_grad():
        (wanted,) = (value.numpy() for value in simulate.integers(model)(x).values())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in x.items()})
    return float(10 * np.log10(np.square(wanted).sum() / max(np.square(found - wanted).sum(), 1e-30)))


@pytest.mark.parametrize("name", TYPES)
def test_every_layer_is_in_its_type_and_so_is_what_lies_between(name: str) -> None:
    model = planned(residual().model("scores"), name)
    file = written(model)
    assert set(kinds(file).values()) == {TYPES[name]}
    back = [node for node in file.graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT]
    types = {value.name: value.type.tensor_type.elem_type for value in file.graph.value_info}
    for node in file.graph.node:  # clips, the residual sum
        if node.op_type == "Clip":
            assert {types[output] for output in node.output} == {TYPES[name]}
    assert len(back) == 3  # both sides of the sum, which nobody rounds, and the end
    assert [value.type.tensor_type.elem_type for value in (*file.graph.input, *file.graph.output)] == [1, 1]


def test_the_numbers_are_those_of_the_simulation() -> None:
    model = planned(residual().model("scores"), "fp16")
    assert decibels(model, written(model)) > 55
    assert decibels(model, to_onnx(model, TARGET.opset)) > 55


def test_formats_are_mixed_layer_by_layer() -> None:
    net = Net()
    first = net.relu6(net.conv("x", 8, 3))
    second = net.relu6(net.conv(first, 8, 3))
    third = net.relu6(net.conv(second, 8, 3))
    net.head(third)
    source = net.model("scores")
    model = planned(source, "fp16", {"conv2": "int8", "scores": None})
    file = written(model)
    assert decibels(model, file) > 50
    types = {value.name: value.type.tensor_type.elem_type for value in (*file.graph.value_info, *file.graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in file.graph.initializer}
    read = {node.name: types[node.input[0]] for node in file.graph.node if node.op_type in LAYERS}
    assert read == {"conv0": 10, "conv2": 1, "conv4": 10, "scores": 1}
    makers = {name: node.op_type for node in file.graph.node for name in node.output}
    (conv,) = (node for node in file.graph.node if node.name == "conv2")
    assert [makers.get(name) for name in conv.input[:2]] == ["DequantizeLinear", "DequantizeLinear"]


def test_a_sum_and_what_clips_it_are_typed_where_all_who_read_it_round_it() -> None:
    net = Net()
    stem = net.relu6(net.conv("x", 8, 3))
    sums = net.relu6(net.op("Add", net.conv(stem, 8, 3), stem, name="sum"))
    net.head(net.op("MaxPool", net.conv(sums, 8, 3), kernel_shape=[2, 2], strides=[2, 2]))
    model = planned(net.model("scores"), "fp16")
    file = written(model)
    assert decibels(model, file) > 55
    types = {value.name: value.type.tensor_type.elem_type for value in file.graph.value_info}
    assert [types[node.output[0]] for node in file.graph.node if node.op_type in ("Add", "Clip")] == [10, 10, 10]


def test_a_tensor_that_is_also_read_in_float_is_not_rounded_for_those_readers() -> None:
    net = Net()
    conv = net.conv("x", 8, 3)
    net.head(net.op("Add", net.conv(conv, 8, 3), net.op("Tanh", conv), name="sum"))
    model = planned(net.model("scores"), "fp16")
    file = written(model)
    assert decibels(model, file) > 55
    (tanh,) = (node for node in file.graph.node if node.op_type == "Tanh")
    types = {value.name: value.type.tensor_type.elem_type for value in file.graph.value_info}
    assert types[tanh.output[0]] == TensorProto.FLOAT


def test_a_file_without_such_layers_stays_as_it_is() -> None:
    made = to_onnx(planned(residual().model("scores"), "int8"), TARGET.opset)
    assert typed(made).SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


def test_the_same_bytes_each_time_and_the_file_given_stays() -> None:
    made = to_onnx(planned(residual().model("scores"), "bf16"), TARGET.opset)
    before = made.SerializeToString(deterministic=True)
    first, second = (typed(made).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second != before
    assert made.SerializeToString(deterministic=True) == before


def test_names_that_are_taken_are_not_given_again() -> None:
    made = to_onnx(planned(residual().model("scores"), "fp16"), TARGET.opset)
    tensor = next(t for t in made.graph.initializer if t.name.endswith("bias"))
    taken = onnx.TensorProto()
    taken.CopyFrom(tensor)
    taken.name = f"{tensor.name}.float16"
    made.graph.initializer.append(taken)
    names = [t.name for t in typed(made).graph.initializer]
    assert len(set(names)) == len(names)
