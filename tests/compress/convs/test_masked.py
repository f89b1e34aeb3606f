"""Convolutions of what is occupied or shown, beside a loop over places."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from convkit.compress.convs.flow4d import STDB
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


def test_training_takes_statistics_of_what_is_shown() -> None:
    torch.manual_seed(0)
    norm, x = SparseBatchNorm2d(3).train(), torch.randn(4, 3, 8, 6)
    active = torch.tensor([[[[1.0, 0], [0, 1], [1, 1], [0, 0]]]]).expand(4, 1, 4, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    there = shown(torch.ones_like(x), active) > 0
    places = x.movedim(1, 0)[there.movedim(1, 0)].reshape(3, -1)
    wanted = nn.BatchNorm1d(3)
    wanted.load_state_dict(norm.state_dict())
    made = norm(shown(x, active), active)
    torch.testing.assert_close(made.movedim(1, 0)[there.movedim(1, 0)].reshape(3, -1), wanted(places.T).T)
    assert not made[~there].any()
    torch.testing.assert_close(norm.running_mean, wanted.running_mean)
    torch.testing.assert_close(norm.running_var, wanted.running_var)
