"""Residual blocks are found, and a network without one is what its branch of zero makes it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress import graph as graphs
from convkit.compress.model import clone, sample_inputs, with_shapes
from convkit.compress.shrinking import residual
from tests.compress.shrinking.test_cutting import made
from tests.nets.small import loaded


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("resnet", [2, 1, 1, 1]), ("mobilenet_v2", [1, 2, 3, 2, 2]), ("convnext", [1, 1, 2, 1]), ("unet", [])],
)
def test_blocks_of_real_nets(name: str, sizes: list[int]) -> None:
    """Blocks that change width or size have no way past them but a layer of its own."""
    model = with_shapes(loaded(name))
    found = residual.blocks(model.graph)
    assert [len(stage) for stage in residual.stages(found)] == sizes
    for block in found:
        own = clone(model.graph)
        silent = clone(model.graph)
        last = silent.get_submodule(block.layers[-1])
        with torch.no_grad():
            for tensor in last.parameters():
                tensor.zero_()
        without = residual.leave_out(own, {block.name})
        assert not {graphs.key(node) for node in graphs.computes(without)} & set(block.layers)
        inputs = tuple(sample_inputs(model.inputs).values())
        for found_out, wanted in zip(without(*inputs), silent(*inputs), strict=True):
            torch.testing.assert_close(found_out, wanted, rtol=1e-5, atol=1e-5)


class Watched(nn.Module):
    """What is inside the block is read outside, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        inside = self.inner(x)
        out: Tensor = self.last(x + inside) * inside
        return out


def test_a_block_that_is_watched_is_none() -> None:
    assert not residual.blocks(made(Watched(), 3, 8, 8).graph)
