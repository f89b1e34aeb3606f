"""What kernels leave alone: nodes that look like theirs, and compute or hold something else."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.compress.errors import ConvkitError
from convkit.export import kernels
from tests.compress.convs.test_convs import FOLDS, made
from tests.export.ops.test_nodes import RTX, Block, deformed, plain
from tests.export.test_functions import written


@pytest.mark.parametrize("told", [{"group": 2}, {"strides": [1, 2]}, {"pads": [1, 1, 0, 1]}])
def test_other_deformable_convolutions_are_left_alone(told: dict[str, object]) -> None:
    with pytest.raises(ConvkitError, match="kernel deform_conv finds nothing"):
        kernels.with_kernels(deformed(codes=False, masked=False, **told), ["deform_conv"])


def test_what_others_read_a_part_of_is_left_alone() -> None:
    """Half of EvoNorm leaves the network: there is no node that makes both."""
    model = written(made("evonorm")[0], RTX, methods=FOLDS)
    inner = next(node for node in model.graph.node if node.op_type == "Div").output[0]
    model.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
    with pytest.raises(ConvkitError, match="kernel evonorm finds nothing"):
        kernels.with_kernels(model, ["evonorm"])


def test_what_looks_like_it_and_computes_something_else_is_left_alone() -> None:
    """A response norm over other axes."""
    model = written(made("unireplknet")[0], RTX, methods=FOLDS)
    node = next(node for node in model.graph.node if node.op_type == "ReduceSum")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "other"))
    node.input[1] = "other"
    del model.graph.value_info[:]
    with pytest.raises(ConvkitError, match="kernel grn finds nothing"):
        kernels.with_kernels(model, ["grn"])


def test_one_number_for_all_channels_is_left_alone() -> None:
    """The nodes spread it, the kernel would read on."""
    for name, kernel_name in (("unireplknet", "grn"), ("evonorm", "evonorm")):
        model = written(made(name)[0], RTX, methods=FOLDS)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            channels = array.ndim > 1 and array.size == max(array.shape) > 1
            if channels and array.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(np.full([1] * array.ndim, 0.5, np.float32), tensor.name))
        del model.graph.value_info[:]
        with pytest.raises(ConvkitError, match=f"kernel {kernel_name} finds nothing"):
            kernels.with_kernels(model, [kernel_name])


def test_a_block_in_two_types_is_left_alone() -> None:
    """The kernel multiplies in one; what a plan keeps wider would be narrowed."""
    model = written(plain(Block(), (16, 9, 8)), RTX)
    weight = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    held = next(tensor for tensor in model.graph.initializer if tensor.name == weight)
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held).astype(np.float16), f"{weight}_half"))
    cast = helper.make_node("Cast", [f"{weight}_half"], [weight], "widened", to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    del model.graph.value_info[:]
    with pytest.raises(ConvkitError, match="kernel conv_first finds nothing"):
        kernels.with_kernels(model, ["conv_first"])


def test_a_network_without_any_is_told() -> None:
    model = written(made("lut")[0], RTX)
    with pytest.raises(ConvkitError, match="no kernel finds anything"):
        kernels.with_kernels(model, [kernels.ALL])
