"""Pyramid convolution beside scipy's correlations, torchvision's offsets left at nothing, and a norm written out."""

import numpy as np
import torch
from scipy.ndimage import correlate, map_coordinates
from torch import nn

from convkit.compress.convs.sepc import PyramidConv

SIZES = ((9, 12), (5, 6), (3, 3))


def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, *size, generator=generator) for size in SIZES]


def convolved(x: np.ndarray, kernel: torch.nn.Module, stride: int) -> np.ndarray:
    weight, bias = (np.asarray(p.detach().double()) for p in (kernel.weight, kernel.bias))
    rows = [
        [sum(correlate(image[i], weight[o, i], mode="constant") for i in range(4)) + bias[o] for o in range(4)]
        for image in x
    ]
    return np.asarray(rows)[:, :, ::stride, ::stride]


def widened(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corners on corners."""
    rows, columns = (np.linspace(0, old - 1, new) for old, new in zip(x.shape[2:], size, strict=True))
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray([[map_coordinates(each, grid, order=1) for each in image] for image in x])


def wanted(conv: PyramidConv, given: list[np.ndarray], norm: nn.BatchNorm2d | None) -> list[np.ndarray]:
    coarser, own, finer = conv.Pconv
    made = []
    for level, x in enumerate(given):
        y = convolved(x, own, 1)
        if level > 0:
            y = y + convolved(given[level - 1], finer, 2)
        if level < len(given) - 1:
            y = y + widened(convolved(given[level + 1], coarser, 1), x.shape[2:])
        if norm is not None:
            mean, var, weight, bias = (
                np.asarray(p.detach().double())[:, None, None]
                for p in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            y = (y - mean) / np.sqrt(var + norm.eps) * weight + bias
        made.append(np.maximum(y, 0))
    return made


def test_levels_see_their_neighbours() -> None:
    torch.manual_seed(0)
    conv, given = PyramidConv(4, 4).eval(), levels()
    for got, right in zip(conv(given), wanted(conv, [np.asarray(x.double()) for x in given], None), strict=True):
        assert np.abs(got.detach().numpy() - right).max() <= 1e-5


def test_the_shared_norm_is_folded() -> None:
    torch.manual_seed(0)
    conv, given = PyramidConv(4, 4, iBN=True), levels()
    for kernel in conv.Pconv:
        nn.init.normal_(kernel.bias)
    nn.init.normal_(conv.bn.weight)
    nn.init.normal_(conv.bn.bias)
    conv.train()
    with torch.no_grad():
        conv(given)
    flat = np.concatenate([y.reshape(2, 4, -1) for y in _before(conv, given)], -1)
    assert np.abs(conv.bn.running_mean.numpy() - 0.1 * flat.mean((0, 2))).max() <= 1e-5
    conv.eval()
    for got, right in zip(conv(given), wanted(conv, [np.asarray(x.double()) for x in given], conv.bn), strict=True):
        assert np.abs(got.detach().numpy() - right).max() <= 1e-5


def _before(conv: PyramidConv, given: list[torch.Tensor]) -> list[np.ndarray]:
    """What the norm reads."""
    coarser, own, finer = conv.Pconv
    made, arrays = [], [np.asarray(x.double()) for x in given]
    for level, x in enumerate(arrays):
        y = convolved(x, own, 1)
        y = y + convolved(arrays[level - 1], finer, 2) if level > 0 else y
        above = convolved(arrays[level + 1], coarser, 1) if level < len(arrays) - 1 else None
        made.append(y if above is None else y + widened(above, x.shape[2:]))
    return made


def test_offsets_of_nothing_move_nothing() -> None:
    torch.manual_seed(0)
    plain, moved, given = PyramidConv(4, 4).eval(), PyramidConv(4, 4, part_deform=True).eval(), levels()
    moved.load_state_dict(plain.state_dict(), strict=False)
    for kernel in moved.Pconv:
        nn.init.zeros_(kernel.conv_offset.weight)
        nn.init.zeros_(kernel.conv_offset.bias)
    for got, right in zip(moved(given), plain(given), strict=True):
        assert (got - right).abs().max() <= 1e-5
