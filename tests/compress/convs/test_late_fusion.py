"""Networks of series beside torch's own attention, and an ensemble beside its networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convkit.compress.convs.late_fusion import LateFusion, TemporalBlock, VariableAttention


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    layer, x = VariableAttention(3, 6, 2, filters=2, heads=3), torch.randn(2, 3, 6)
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in (layer.query, layer.key, layer.value)]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in (layer.query, layer.key, layer.value)]))
        reference.out_proj.load_state_dict(layer.mixed.state_dict())
        seen = layer.conv(x).relu().reshape(2, 3, -1)
        wanted = layer.out((seen + reference(seen, seen, seen)[0]).flatten(1))
        assert (layer(x) - wanted).abs().max() <= 1e-5


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(TemporalBlock(3, 4, 3), nn.Flatten(), nn.Linear(32, 2)).eval() for _ in range(3)]
    x = torch.randn(2, 3, 8)
    assert (LateFusion(networks)(x) - sum(net(x) for net in networks) / 3).abs().max() <= 1e-6


@pytest.mark.parametrize("length", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 1), (4, 2), (3, 2), (2, 3)])
def test_a_block_keeps_the_length_but_for_its_stride(length: int, kernel: int, stride: int) -> None:
    """An even kernel reads one more at the end than at the beginning."""
    torch.manual_seed(0)
    block, x = TemporalBlock(3, 4, kernel, stride=stride).eval(), torch.randn(2, 3, length)
    made = block(x)
    assert made.shape == (2, 4, -(-length // stride))
    first = F.pad(block.norm1(x).relu(), ((kernel - 1) // 2, kernel // 2))
    second = F.pad(block.norm2(plain(block.conv1, first)).relu(), ((kernel - 1) // 2, kernel // 2))
    assert (made - block.skip(x) - plain(block.conv2, second)).abs().max() <= 1e-6


def plain(layer: nn.Conv1d, padded: torch.Tensor) -> torch.Tensor:
    return F.conv1d(padded, layer.weight, layer.bias, layer.stride)


def test_attention_takes_an_even_kernel() -> None:
    torch.manual_seed(0)
    layer, x = VariableAttention(3, 6, 2, filters=2, kernel_size=4), torch.randn(2, 3, 6)
    odd = VariableAttention(3, 6, 2, filters=2, kernel_size=5)
    state = layer.state_dict()
    odd.load_state_dict(state | {"conv.weight": F.pad(state["conv.weight"], (1, 0))})
    assert (layer(x) - odd(x)).abs().max() <= 1e-6


def test_heads_that_do_not_part_are_refused() -> None:
    with pytest.raises(ValueError, match="18 features of a variable do not part into 4 heads"):
        VariableAttention(2, 6, 2, filters=3, heads=4)
