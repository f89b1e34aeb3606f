"""What builders log of their layers: the lines of both packages, and of several versions, as they were seen."""

import onnx
import pytest

from convkit.compress.errors import ConvkitError
from convkit.export.tensorrt import precision
from convkit.export.tensorrt.dump import Tensor, layers
from tests.compress.network import Net

RTX = (
    "Layers:\n"
    "Name: a_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,3,8,8], Format/Datatype: Float }], "
    "Outputs: [ { Name: y[0], Dimensions: [1,4,8,8], Format/Datatype: Half }], Constants: [ { Name: c, Dimensions: [], "
    "Format/Datatype: E4M3 }], Metadata: [ONNX Layer: one]\x1f[ONNX Layer: two]\n"
    "Bindings:\nx\n"
)
CONV = (
    "Layers:\n"
    "Name: conv + relu, LayerType: CaskConvolution, Inputs: [ {{ Name: x, Location: Device, Dimensions: [1,4,8,8], "
    "Format/Datatype: {read} }}], Outputs: [ {{ Name: y, Location: Device, Dimensions: [1,8,8,8], Format/Datatype: "
    '{read} }}], ParameterType: Convolution, Kernel: [3,3], OutMaps: 8, Groups: 1, Weights: {{"Type": "{held}", '
    '"Count": 288}}, Bias: {{"Type": "Float", "Count": 8}}, HasBias: 1, Activation: RELU, TacticName: '
    "sm80_xmma_fprop, StreamId: 0, Metadata: [ONNX Layer: conv0]\x1e[ONNX Layer: relu1[a]]\n"
)


def test_layers_are_read_from_what_the_builder_logs() -> None:
    (layer,) = layers(["nothing", RTX])
    assert (layer.name, layer.kind, layer.nodes) == ("a_myl0_0", "kgen", ("one", "two"))
    assert layer.inputs == (Tensor("x", (1, 3, 8, 8), "fp32"),)
    assert layer.outputs == (Tensor("y[0]", (1, 4, 8, 8), "fp16"),)
    assert layer.constants == (Tensor("c", (), "fp8_e4m3"),)
    with pytest.raises(ConvkitError, match="told nothing of its layers"):
        layers(["nothing"])


@pytest.mark.parametrize(
    ("read", "number"),
    [
        ("Half", "fp16"),
        ("Int8", "int8"),
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half(64,1:8,64)", "fp16"),
        ("N/A due to dynamic shapes", ""),
        ("Bool", "bool"),
    ],
)
def test_types_are_read_from_the_words_of_tensorrt(read: str, number: str) -> None:
    """From 10.7 on a word; before, a description."""
    (layer,) = layers([CONV.format(read=read, held="Half")])
    assert layer.inputs == (Tensor("x", (1, 4, 8, 8), number),)
    assert layer.constants == (Tensor("Weights", (288,), "fp16"), Tensor("Bias", (8,), "fp32"))
    assert layer.nodes == ("conv0", "relu1[a]")


@pytest.mark.parametrize(
    ("read", "held", "ran"),
    [
        ("Float", "Float", "fp32"),
        ("Half", "Half", "fp16"),
        ("Int8", "Int8", "int8"),
        ("N/A due to dynamic shapes", "Half", "fp16"),
        ("Float", "Half", "fp32"),
    ],
)
def test_a_layer_of_tensorrts_is_matched_to_its_node(read: str, held: str, ran: str) -> None:
    """By its name among those that it fuses, and by the numbers that it holds."""
    net = Net(1, 4, 8, 8)
    proto = net.proto(net.conv("x", 8, 3))
    (found,) = precision.compare(proto, layers([CONV.format(read=read, held=held)]))
    assert (found.node, found.planned, found.ran, found.holds) == ("conv0", "fp32", ran, ran == "fp32")


def test_a_plan_counts_for_more_than_its_file() -> None:
    """A file that lost a type would else be found to run as it says."""
    net = Net(1, 4, 8, 8)
    proto = net.proto(net.conv("x", 8, 3))
    built = layers([CONV.format(read="Float", held="Float")])
    (lost,) = precision.compare(proto, built, {"conv0": "fp16", "other": "int8"})
    assert lost.words == "Conv 'conv0' is planned in fp16 and runs in fp32 (conv + relu)"
    assert proto.graph.initializer[0].data_type == onnx.TensorProto.FLOAT
