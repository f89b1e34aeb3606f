"""Weights in the names of a reference implementation: loaded into a layer alone, in a network, and by --weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, adopted, renamed
from convkit.compress.errors import ConvkitError
from convkit.compress.sources import _weights


class Scaled(Adopting):
    """Theirs: `scale`, a logarithm, and `steps`, which is of no use here."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def own(self, state: State) -> State:
        if "limit" in state:
            raise ValueError("it has no limit: leave it out")
        found = {name: tensor.exp() if name == "scale" else tensor for name, tensor in state.items()}
        return renamed(found, {"scale$": "weight", r"steps\.": None})

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Outer(Adopting):
    """Theirs calls the inner layer `first`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.linear = Scaled(), nn.Linear(2, 2)

    def own(self, state: State) -> State:
        return renamed(state, {r"first\.": "inner."})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), Outer())


def theirs() -> State:
    state = {name: torch.randn_like(tensor) for name, tensor in network().state_dict().items()}
    state["1.first.scale"] = state.pop("1.inner.weight")
    return state | {"1.first.steps.0": torch.zeros(1)}


def test_renamed_takes_the_first_pattern_that_matches_from_the_beginning_on() -> None:
    state = {"a.b": torch.zeros(1), "c.a.b": torch.ones(1), "gone": torch.ones(1)}
    found = renamed(state, {r"a\.": "x.", "a": "y", "gone$": None})
    assert list(found) == ["x.b", "c.a.b"]


def test_two_names_of_one_tensor_are_refused() -> None:
    state = {"weight": torch.ones(2), "scale": torch.ones(2)}
    with pytest.raises(RuntimeError, match="Scaled: 'scale' and another are both 'weight' here: leave one out"):
        Scaled().load_state_dict(state)
    assert renamed({"a": torch.ones(1)}, {"[aA]$": "a"})


def test_inner_layers_load_under_the_names_of_outer_ones() -> None:
    made, state = network(), theirs()
    before = dict(state)
    made.load_state_dict(state, strict=True)
    assert list(state) == list(before)
    assert torch.equal(made.state_dict()["1.inner.weight"], state["1.first.scale"].exp())
    own = made.state_dict()
    again = network()
    again.load_state_dict(own, strict=True)
    assert all(torch.equal(tensor, own[name]) for name, tensor in again.state_dict().items())
    found = adopted(network(), state)
    assert list(found) != list(state)
    assert sorted(found) == sorted(own)


def test_a_layer_alone_changes_values_too() -> None:
    layer = Scaled()
    layer.load_state_dict({"scale": torch.zeros(2), "steps.3": torch.zeros(1)}, strict=True)
    assert torch.equal(layer.weight.detach(), torch.ones(2))


def test_what_cannot_be_is_said_with_the_layer() -> None:
    state = theirs() | {"1.first.limit": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"1\.inner: it has no limit: leave it out"):
        network().load_state_dict(state)


def test_weights_files_are_adopted(tmp_path: Path) -> None:
    made, state = network(), theirs()
    save_file(state, tmp_path / "theirs.safetensors")
    _weights.install(made, str(tmp_path / "theirs.safetensors"))
    assert torch.equal(made.state_dict()["1.linear.weight"], state["1.linear.weight"])
    save_file(state | {"1.first.limit": torch.zeros(1)}, tmp_path / "limited.safetensors")
    with pytest.raises(ConvkitError, match=r"limited.safetensors does not fit the network: 1\.inner: it has no limit"):
        _weights.install(made, str(tmp_path / "limited.safetensors"))
