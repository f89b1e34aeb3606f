"""Which nodes are a novel convolution's: of subclasses, of parts inside parts, and of files that say anything."""

from collections.abc import Iterator

import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from convkit.compress import conv, membership
from convkit.compress.conv import Conv, Example
from convkit.compress.convs.deform import DeformBlock
from convkit.compress.convs.eca import ECA
from tests.compress.convs.test_convs import traced


class Mine(DeformBlock):
    """A subclass, in a module of the user's."""


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.mixed = ECA(3), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.mixed(self.gate(x))
        return made


def own(layer: nn.Module) -> Iterator[dict[str, object]]:
    for node in traced(Example(nn.Sequential(nn.Conv2d(4, 4, 1), layer), {"input": (4, 6, 6)})).graph.graph.nodes:
        if "op" in node.meta:
            yield node.meta


def test_a_subclass_is_what_it_is_made_from() -> None:
    torch.manual_seed(0)
    found, kept = (list(own(kind(4, 4))) for kind in (DeformBlock, Mine))
    assert [meta["op"] for meta in found] == [meta["op"] for meta in kept]
    assert [meta.get("keep") for meta in found] == [meta.get("keep") for meta in kept]
    assert any(meta.get("keep") for meta in kept)


def test_a_part_inside_another_keeps_its_own_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = Conv("somebody", "T1", (Outer,), list)
    real, known = conv.load, membership.parts.of_module
    monkeypatch.setattr(conv, "load", lambda name: outer if name == "outer" else real(name))
    monkeypatch.setattr(
        membership.parts, "of_module", lambda folder, module: "outer" if module == __name__ else known(folder, module)
    )
    found = list(own(Outer()))
    assert {meta["op"] for meta in found} == {"outer:1"}
    assert len([meta for meta in found if meta.get("keep")]) == 1


def test_the_users_own_network_is_no_part_though_it_stands_beside_one() -> None:
    assert membership.of_kind("convkit.compress.convs.eca.ECA") == "eca"
    assert not membership.of_kind("convkit.compress.convs.eca.Network")


@pytest.mark.parametrize("told", [":", ":place", "../../x:1", "a b:1", "é" * 300, "x" * 300 + ":", "no colon"])
def test_what_is_no_tag_says_nothing(told: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    membership.write(node, {"convkit.op": told, "convkit.keep": "because"})
    assert membership.meta(node) == {}


def test_a_part_that_is_not_here_keeps_what_it_kept() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    membership.write(node, {"convkit.op": "elsewhere:2", "convkit.keep": "because"})
    assert membership.meta(node) == {"op": "elsewhere:2", "keep": "because"}
    assert membership.metadata(membership.meta(node)) == {p.key: p.value for p in node.metadata_props}
