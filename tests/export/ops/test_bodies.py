"""What is read in the bodies of nodes stays, whatever kernels take beside them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.compress.errors import ConvkitError
from convkit.export import kernels
from tests.compress.convs.test_convs import FOLDS, inputs, made
from tests.export.test_functions import run_by_onnxruntime, written


def branch(read: str) -> onnx.GraphProto:
    """What is read from around it, and nothing more."""
    output = helper.make_tensor_value_info(f"{read}_out", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", [read], [f"{read}_out"])], read, [], [output])


def test_a_constant_that_only_a_branch_reads_stays() -> None:
    """Behind the network its output is scaled by what an If gives."""
    example = made("evonorm")[0]
    model = written(example, "tensorrt_rtx", methods=FOLDS)
    held = {"on": np.array(True), "two": np.array(2, np.float32), "three": np.array(3, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    either = helper.make_node("If", ["on"], ["factor"], then_branch=branch("two"), else_branch=branch("three"))
    output = model.graph.output[0]
    product = helper.make_node("Mul", [output.name, "factor"], ["scaled"])
    model.graph.node.extend([either, product])
    output.name = "scaled"
    given = inputs(example, 2)
    wanted = run_by_onnxruntime(model, given)
    assert set(kernels.with_kernels(model, ["evonorm"]).values()) == {"evonorm"}
    onnx.checker.check_model(model, full_check=True)
    assert np.allclose(run_by_onnxruntime(model, given), wanted)


def test_what_a_branch_reads_a_part_of_is_left_alone() -> None:
    """Half of EvoNorm, which no node would make."""
    model = written(made("evonorm")[0], "tensorrt_rtx", methods=FOLDS)
    inner = next(node for node in model.graph.node if node.op_type == "Div").output[0]
    held = {"on": np.array(True), "two": np.array(2, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    either = helper.make_node("If", ["on"], ["half"], then_branch=branch(inner), else_branch=branch("two"))
    model.graph.node.append(either)
    model.graph.output.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, None))
    with pytest.raises(ConvkitError, match="kernel evonorm finds nothing"):
        kernels.with_kernels(model, ["evonorm"])
