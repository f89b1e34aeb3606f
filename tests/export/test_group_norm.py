"""Group norms far from zero: ONNX Runtime's own way loses their digits, what convkit writes for it does not."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from convkit.compress.convs.ela import ELA
from convkit.compress.model import ModelRef, parse_shape
from convkit.compress.sources import factory
from convkit.export import exporter


def written(network: nn.Module, shape: str, engine: str = "onnxruntime") -> onnx.ModelProto:
    model = factory.from_module(network, ModelRef("nets:build", shapes=dict([parse_shape(shape)])))
    made = exporter.of_engine(engine).proto(model, exporter.OPSET)
    onnx.checker.check_model(made, full_check=True)
    return made


def off(made: onnx.ModelProto, network: nn.Module, given: torch.Tensor) -> float:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": given.numpy()})
    with torch.no_grad():
        wanted = network.double()(given.double()).numpy()
    network.float()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def norm(channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    made = nn.GroupNorm(4, channels)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    return nn.Sequential(made)


@pytest.mark.parametrize("shape", [(9, 8), (17,), (3, 5, 4), ()])
def test_numbers_far_from_zero_keep_their_digits(shape: tuple[int, ...]) -> None:
    network, sizes = norm(), "x".join(map(str, ("N", 8, *shape)))
    made = written(network, f"input:{sizes}")
    given = 300 + torch.randn(3, 8, *shape, generator=torch.Generator().manual_seed(1))
    assert off(made, network, given) < 5e-4  # float32's own digits of 300, where a group is two numbers
    assert off(made, network, given[:1] - 300) < 1e-5


def test_the_operator_itself_would_lose_them() -> None:
    network = norm()
    plain = written(network, "input:Nx8x9x8", "onnx")
    assert [node.op_type for node in plain.graph.node] == ["GroupNormalization"]
    given = 300 + torch.randn(3, 8, 9, 8, generator=torch.Generator().manual_seed(1))
    assert off(plain, network, given) > 1e-3


def test_those_inside_of_a_layer_keep_them_as_well() -> None:
    """ELA, whose groups of two rows have two numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(ELA(16, 7))
    made = written(network, "input:Nx16x2x31")
    assert made.functions
    given = 200 * torch.randn(3, 16, 2, 31, generator=torch.Generator().manual_seed(1))
    assert off(made, network, given) < 5e-5


def test_free_sizes_stay_free() -> None:
    network = norm()
    made = written(network, "input:Nx8xH=9xW=8")
    given = torch.randn(2, 8, 5, 12, generator=torch.Generator().manual_seed(1))
    assert off(made, network, given) < 1e-5


def test_other_types_keep_the_operator() -> None:
    """InstanceNormalization has no kernel for them."""
    for network in (norm().double(), nn.Sequential(ELA(16, 7)).double()):
        channels = 8 if len(list(network.modules())) == 2 else 16
        made = written(network, f"input:float64:Nx{channels}x6x5")
        kinds = [node.op_type for holder in (made.graph, *made.functions) for node in holder.node]
        assert "GroupNormalization" in kinds
        assert "InstanceNormalization" not in kinds
