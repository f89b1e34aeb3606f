"""Convolutions of what is occupied or shown, beside a loop over places."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convkit.compress.convs.flow4d import STDB, SpatioTemporalDecompositionBlock
from convkit.compress.convs.spark import SparseBatchNorm2d, SparseConv2d, shown


def normed(y: np.ndarray, norm: nn.Module) -> np.ndarray:
    mean, var, weight, bias = (
        p.detach().double().numpy() for p in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    y = (y - mean) / np.sqrt(var + norm.eps) * weight + bias
    return np.where(y > 0, y, 0.01 * y)


def test_a_block_of_voxels() -> None:
    """Only occupied voxels are looked at, and only they look."""
    torch.manual_seed(0)
    block, shape = STDB(2, 3).eval(), (3, 4, 2, 3)
    for norm in (block.space_norm, block.time_norm, block.joined_norm):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.3, 2.0)
        nn.init.normal_(norm.bias)
    occupied = (torch.rand(1, 1, *shape) > 0.5).float()
    x = torch.randn(1, 2, *shape) * occupied
    image, there = x[0].double().numpy(), occupied[0, 0].numpy() > 0
    space, time, joined = (layer.weight.detach().double().numpy() for layer in (block.space, block.time, block.joined))
    made = np.zeros((3, *shape))
    for place in np.argwhere(there):
        near, along = np.zeros(3), np.zeros(3)
        for step in itertools.product((-1, 0, 1), repeat=4):
            other = place + step
            if ((other < 0) | (other >= shape)).any() or not there[tuple(other)]:
                continue
            values = image[(slice(None), *other)]
            if step[3] == 0:
                near += space[(slice(None), slice(None), *(np.array(step[:3]) + 1))] @ values
            if step[:3] == (0, 0, 0):
                along += time[:, :, step[3] + 1] @ values
        both = np.concatenate(
            [normed(near, block.space_norm), normed(along, block.time_norm), image[(slice(None), *place)]]
        )
        made[(slice(None), *place)] = normed(joined[:, :, 0] @ both, block.joined_norm)
    assert np.abs(block(x, occupied)[0].detach().numpy() - made).max() <= 1e-5


def test_a_block_trains_by_its_voxels() -> None:
    """Its norms are those of rows, one for each voxel."""
    torch.manual_seed(0)
    block, names = STDB(2, 3, 4).train(), ("space_norm", "time_norm", "joined_norm")
    occupied = (torch.rand(2, 1, 3, 4, 2, 3) > 0.5).float()
    x, there = (torch.randn(2, 2, 3, 4, 2, 3) * occupied).requires_grad_(), occupied[:, 0] > 0
    rows = {name: nn.BatchNorm1d(block.get_submodule(name).num_features) for name in names}
    for name in names:
        nn.init.normal_(block.get_submodule(name).bias)
        rows[name].load_state_dict(block.get_submodule(name).state_dict())
    space = block.space(x.permute(0, 5, 1, 2, 3, 4).flatten(0, 1)).unflatten(0, (2, 3)).permute(0, 3, 4, 5, 1, 2)
    taps = (F.pad(x, (1, 1))[..., k : k + 3].movedim(1, -1) @ block.time.weight[:, :, k].T for k in range(3))
    near = F.leaky_relu(rows["space_norm"](space[there]))
    along = F.leaky_relu(rows["time_norm"](sum(taps)[there]))
    both = torch.cat((near, along, x.movedim(1, -1)[there]), 1)
    wanted = F.leaky_relu(rows["joined_norm"](both @ block.joined.weight[:, :, 0].T))
    made = block(x, occupied).movedim(1, -1)
    torch.testing.assert_close(made[there], wanted)
    assert not made[~there].any()
    for name in names:
        torch.testing.assert_close(block.get_submodule(name).state_dict(), rows[name].state_dict())
    ways = torch.randn_like(wanted)
    slopes = (torch.autograd.grad((one * ways).sum(), x)[0] * occupied for one in (made[there], wanted))
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


def test_kernels_of_another_spconv_are_refused() -> None:
    block = SpatioTemporalDecompositionBlock(2, 3, 4)
    with pytest.raises(RuntimeError, match=r"temporal_conv_2.weight is a kernel \[O, X, Y, Z, T, I\] of spconv 2, not"):
        block.load_state_dict({"temporal_conv_2.weight": torch.zeros(3, 3, 3)})


def test_what_is_hidden_stays_nothing_and_the_rest_is_an_ordinary_layer() -> None:
    torch.manual_seed(0)
    sparse, plain = SparseConv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
    plain.load_state_dict(sparse.state_dict())
    x, active = torch.randn(2, 3, 8, 6), torch.tensor([[[[1.0, 0], [0, 1], [1, 1], [0, 0]]]]).expand(2, 1, 4, 2)
    made, whole = sparse(x, active), plain(x)
    for row, column in itertools.product(range(8), range(6)):
        kept = active[0, 0, row // 2, column // 3]
        assert torch.equal(made[:, :, row, column], whole[:, :, row, column] * kept)


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="9x6 does not part into 4x2 patches"):
        shown(torch.zeros(1, 1, 9, 6), torch.ones(1, 1, 4, 2))


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.3, "eps": 0.1}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
def test_a_norm_is_that_of_what_is_shown(options: dict[str, float | None]) -> None:
    """In training, a step after another, and then in evaluation."""
    torch.manual_seed(0)
    norm, wanted = SparseBatchNorm2d(3, **options), nn.BatchNorm1d(3, **options)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    wanted.load_state_dict(norm.state_dict())
    for step in range(4):
        x, active = torch.randn(4, 3, 8, 6), (torch.rand(4, 1, 4, 2) > 0.5).float()
        for one in (norm, wanted):
            one.train(step < 3)
        there = shown(torch.ones_like(x[:, :1]), active)[:, 0] > 0
        rows = x.movedim(1, -1)[there].requires_grad_()
        x.requires_grad_()
        made, right = norm(x, active).movedim(1, -1), wanted(rows)
        torch.testing.assert_close(made[there], right)
        assert not made[~there].any()
        ways = torch.randn_like(right)
        slopes = [torch.autograd.grad((y * ways).sum(), z)[0] for y, z in ((made[there], x), (right, rows))]
        torch.testing.assert_close(slopes[0].movedim(1, -1)[there], slopes[1])
        torch.testing.assert_close(norm.state_dict(), wanted.state_dict())
