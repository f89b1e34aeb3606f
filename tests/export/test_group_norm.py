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
from convkit.export.group_norm import by_instance


def written(network: nn.Module, shape: str, engine: str = "onnxruntime") -> onnx.ModelProto:
    model = factory.from_module(network, ModelRef("nets:build", shapes=dict([parse_shape(shape)])))
    made = exporter.of_engine(engine).proto(model, exporter.OPSET)
    onnx.checker.check_model(made, full_check=True)
    return made


def off(made: onnx.ModelProto, network: nn.Module, given: torch.Tensor) -> float:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {made.graph.input[0].name: given.numpy()})
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


def test_a_scale_of_another_type_that_a_node_makes_keeps_the_operator() -> None:
    """Such as half a network in float16, whose weights are cast."""
    made = written(norm(), "input:Nx8x9x8", "onnx")
    (node,) = made.graph.node
    half = onnx.TensorProto.FLOAT16
    for place in range(3):
        made.graph.node.insert(place, onnx.helper.make_node("Cast", [node.input[place]], [f"half{place}"], to=half))
    node = made.graph.node[-1]
    for place in range(3):
        node.input[place] = f"half{place}"
    made.graph.node.append(onnx.helper.make_node("Cast", ["normal"], [node.output[0]], to=onnx.TensorProto.FLOAT))
    node.output[0] = "normal"
    kinds = [one.op_type for one in by_instance(onnx.shape_inference.infer_shapes(made)).graph.node]
    assert kinds.count("GroupNormalization") == 1
    assert "InstanceNormalization" not in kinds


def test_a_scale_in_float_that_a_node_makes_is_as_good() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.group_norm(x, 4, x.mean((0, 2)) * 2, self.line.bias)

    torch.manual_seed(0)
    network = Computed()
    made = written(network, "x:1x8x9")
    assert "InstanceNormalization" in [node.op_type for node in made.graph.node]
    given = 300 + torch.randn(1, 8, 9, generator=torch.Generator().manual_seed(1))
    assert off(made, network, given) < 5e-4
