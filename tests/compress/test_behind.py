"""Biases behind their convolutions: only those of quantized layers, whatever else a network convolves with."""

import torch

from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.model import Model
from tests.compress.network import Net, batches, kinds, quantized

TARGET = targets.load("openvino-cpu")


def conditional() -> Model:
    """A convolution whose weight and bias are made of the image, before one of the network's own, and a size."""
    net = Net(1, 3, "H", "W")
    mean = net.op("GlobalAveragePool", "x")
    bias = net.op("ReduceMean", net.op("Flatten", mean), axes=[1], keepdims=0)
    made = net.op("Conv", "x", mean, bias, name="own", kernel_shape=[1, 1])
    features = net.op("Relu", net.conv(made, 4, 3, channels=1))
    return net.model(net.head(features), net.op("Shape", features))


def test_a_convolution_that_computes_its_bias_keeps_it() -> None:
    model = conditional()
    made, plan = quantized(model, TARGET)
    assert TARGET.biases == "behind"
    assert "Shape" in kinds(made)
    convs = [node for node in graphs.computes(made.graph) if graphs.operator(node) == "Conv"]
    assert [len(node.args) for node in convs] == [3, 2]
    assert plan.layers["conv4"].weight == "int8"
    for samples in batches(model, seed=1):
        wanted, found = model(samples)["scores"], made(samples)["scores"]
        torch.testing.assert_close(found, wanted, atol=0.05 * float(wanted.abs().max()), rtol=0)
