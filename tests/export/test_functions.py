"""Novel convolutions in ONNX: a node of their own with a body, and the same numbers in every engine."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, helper

from convkit.compress import membership, parts
from convkit.compress.apply import prepare
from convkit.compress.conv import FOLDER
from convkit.export import exporter, functions
from tests.compress.convs.test_convs import CLOSE, FOLDS, Example, example, inputs, off, traced

__all__ = ["example"]


def written(shown: Example, engine: str, sizes: str = "N", methods: tuple[str, ...] = ()) -> onnx.ModelProto:
    model = prepare(traced(shown, sizes), methods)
    made = exporter.of_engine(engine).proto(model, exporter.OPSET)
    onnx.checker.check_model(made, full_check=True)
    return made


def run_by_onnxruntime(model: onnx.ModelProto, given: dict[str, torch.Tensor]) -> torch.Tensor:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {name: x.numpy() for name, x in given.items()})
    return torch.from_numpy(np.asarray(made))


def run_by_openvino(model: onnx.ModelProto, given: dict[str, torch.Tensor]) -> torch.Tensor:
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hint)
    return torch.from_numpy(next(iter(compiled({name: x.numpy() for name, x in given.items()}).values())).copy())


@pytest.mark.parametrize("methods", [(), FOLDS], ids=["as it was trained", "folded"])
def test_engines_compute_the_layer(example: Example, methods: tuple[str, ...]) -> None:
    made, plain = (written(example, engine, methods=methods) for engine in ("onnxruntime", "openvino"))
    assert not plain.functions
    for batch in example.batches:
        given = inputs(example, batch)
        with torch.no_grad():
            wanted = example.layer(**given)
        assert off(run_by_onnxruntime(made, given), wanted) <= CLOSE
        assert off(run_by_openvino(plain, given), wanted) <= CLOSE


def test_it_is_one_node(example: Example) -> None:
    """A call of a function, or the one operator that it is."""
    made = written(example, "onnxruntime", methods=FOLDS)
    assert len(made.graph.node) == 1, [node.op_type for node in made.graph.node]
    names = [(function.domain, function.name) for function in made.functions]
    assert names == [(node.domain, node.op_type) for node in made.graph.node if node.domain == functions.DOMAIN]


def test_like_layers_share_a_body() -> None:
    torch.manual_seed(0)
    layer = parts.load(FOLDER, "eca").layers[0]
    shown = Example(torch.nn.Sequential(layer(3), layer(3), layer(5)), {"input": (8, 6, 6)})
    made = written(shown, "onnxruntime")
    assert [node.op_type for node in made.graph.node] == ["Eca", "Eca", "Eca_2"]
    assert [function.name for function in made.functions] == ["Eca", "Eca_2"]
    given = inputs(shown, 2)
    assert off(run_by_onnxruntime(made, given), shown.layer(**given).detach()) <= CLOSE


def test_an_output_that_is_left_out_is_no_result_of_a_body() -> None:
    """Nor does who leaves an input out read it."""
    names = [("MaxPool", ["x"], ["large", ""]), ("Relu", ["large"], ["kept"]), ("Clip", ["kept", "", "most"], ["y"])]
    nodes = [helper.make_node(op, read, made, f"pooled.{op}") for op, read, made in names]
    nodes[0].attribute.append(helper.make_attribute("kernel_shape", [2, 2]))
    for node in nodes[:2]:
        membership.write(node, {"convkit.op": "eca:pooled"})
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 6, 6 - (name == "y")]) for name in "xy"]
    values[1].type.tensor_type.shape.dim[2].dim_value = 5
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [helper.make_tensor("most", 1, [], [0.5])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    given = {"x": torch.randn(1, 3, 6, 6)}
    wanted = run_by_onnxruntime(model, given)
    made = functions.with_functions(model)
    assert [(node.op_type, list(node.output)) for node in made.graph.node] == [("Eca", ["kept"]), ("Clip", ["y"])]
    assert torch.equal(run_by_onnxruntime(made, given), wanted)
