"""Layers that read less than before, fitted to make what they made."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress.shrinking import levels, shrink
from convkit.compress.shrinking.coupling import coupling
from convkit.compress.shrinking.worth import worth
from tests.compress.network import batches
from tests.compress.shrinking.test_cutting import Body, made


class Two(Body):
    """Two convolutions of weights of their own and the numbers of one bias, which is one or two parameters."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__(12, 6)
        self.left, self.right = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 3, padding=1)
        if shared:
            self.right.bias = self.left.bias

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.left(x) * torch.sigmoid(self.right(x))


def test_each_of_those_that_share_a_bias_gets_one_of_its_own() -> None:
    tied, apart = (made(Two(shared=shared), 3, 8, 8) for shared in (True, False))
    left, right = (tied.graph.get_submodule(name) for name in ("left", "right"))
    assert left.bias is right.bias
    with torch.no_grad():
        for name, tensor in apart.graph.named_parameters():
            tensor.copy_(tied.graph.get_parameter(name))
    samples = batches(tied, 2, 8)
    coupled = coupling(tied.graph)
    gone = levels.uniform(coupled, worth(tied, coupled, samples), 0.5, step=1)
    assert gone
    x = {"x": torch.randn(4, 3, 8, 8)}
    found, wanted = (next(iter(shrink.without(one, gone, samples)(x).values())) for one in (tied, apart))
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert left.bias is right.bias
