"""Operators whose words are newer than the opset asked for: the file gets the opset in which these words came."""

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import fx

from convkit.compress.model import sample_inputs
from convkit.export.onnx import to_onnx
from tests.export.test_onnx import Graph, run


def _group_norm(graph: Graph) -> fx.Node:
    scale, bias = (graph.constant(name, torch.linspace(-1, 2, 4)) for name in ("scale", "bias"))
    return graph.call("GroupNormalization", "y", graph.x, scale, bias, num_groups=2)


def _sampled(mode: str) -> Callable[[Graph], fx.Node]:
    def build(graph: Graph) -> fx.Node:
        places = torch.rand(2, 3, 3, 2, generator=torch.Generator().manual_seed(1)) * 1.5 - 0.75
        return graph.call("GridSample", "y", graph.x, graph.constant("grid", places), mode=mode)

    return build


def _wrapped(graph: Graph) -> fx.Node:
    return graph.call("Pad", "y", graph.x, graph.constant("pads", torch.tensor([0, 0, 1, 2, 0, 0, 2, 1])), mode="wrap")


def _resized(place: str) -> Callable[[Graph], fx.Node]:
    def build(graph: Graph) -> fx.Node:
        scales = graph.constant("scales", torch.tensor([1.0, 1.0, 1.4, 0.7]))
        how = {"mode": "linear", "coordinate_transformation_mode": place}
        return graph.call("Resize", "y", graph.x, None, scales, **how)

    return build


@pytest.mark.parametrize(
    ("build", "opset"),
    [
        (_group_norm, 21),
        (_sampled("linear"), 20),
        (_sampled("cubic"), 20),
        (_wrapped, 19),
        (_resized("half_pixel_symmetric"), 19),
        (_resized("half_pixel"), 18),
    ],
)
def test_newer_words_raise_the_opset(build: Callable[[Graph], fx.Node], opset: int) -> None:
    graph = Graph((2, 4, 7, 9))
    model = graph.model(build(graph))
    written = to_onnx(model, 18)
    assert written.opset_import[0].version == opset
    onnx.checker.check_model(written, full_check=True)
    inputs = sample_inputs(model.inputs, seed=5)
    torch.testing.assert_close(torch.from_numpy(run(written, inputs)["y"]), model(inputs)["y"], rtol=1e-4, atol=1e-5)
