"""Negations: ONNX's Not takes booleans alone, torch's also what is true where it is not zero, and bits."""

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn

from convkit.compress.model import InputShape, ModelRef
from convkit.compress.sources import factory
from convkit.export.onnx import to_onnx
from tests.export.test_onnx import run


class Negation(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


BODIES: dict[str, Callable[[Tensor], Tensor]] = {
    "of booleans": lambda x: ~(x > 0),
    "of floats": lambda x: torch.logical_not(x.floor()),
    "of integers": lambda x: torch.logical_not(x.int()),
    "of bits": lambda x: ~x.int(),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_negation_is_torchs_own_in_the_file_too(name: str) -> None:
    network = Negation(BODIES[name]).eval()
    model = factory.from_module(network, ModelRef("tests:module", shapes={"x": InputShape(("N", 9), (2, 9))}))
    written = to_onnx(model)
    onnx.checker.check_model(written, full_check=True)
    x = torch.linspace(-4, 4, 18).reshape(2, 9)
    for found in (model({"x": x})["output"], torch.from_numpy(run(written, {"x": x})["output"])):
        assert torch.equal(found, network(x))
