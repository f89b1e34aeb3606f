"""Transform once: a network on the cosine modes of its input, which is transformed there and back a single time.

Poli et al., Transform Once: Efficient Operator Learning in Frequency Domain, NeurIPS 2022, section 3. The transform is
two products with constant matrices of the lowest modes, and comes before the lift, which it commutes with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_HIDDEN = 128
_ACTS: Mapping[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "gelu": F.gelu}


def modes_of(size: int, modes: int, padding: int = 0) -> Tensor:
    """The lowest `modes` of the orthonormal DCT-II of a signal of `size` that zeros lengthen by `padding`: [modes,
    size].
    """
    length = size + padding
    place, mode = torch.arange(size, dtype=torch.float64) + 0.5, torch.arange(modes, dtype=torch.float64)
    matrix = math.sqrt(2 / length) * torch.cos(math.pi / length * torch.outer(mode, place))
    matrix[0] /= math.sqrt(2)
    return matrix


class TransformOnceLayer(nn.Module):
    """z [N, width, m, m] of modes: channels are mixed in each mode, then rows and columns of modes in each channel, and
    the whole is added to z, unless not `residual`. Names and shapes of parameters are those of the reference
    implementation; `act` and `residual` are not seen in them.
    """

    def __init__(self, modes: int, width: int, *, act: str = "sin", residual: bool = True) -> None:
        super().__init__()
        if act not in _ACTS:
            raise ValueError(f"the activation of TransformOnce is {' or '.join(_ACTS)}, not {act!r}")
        self.ch_mixing_1 = nn.Parameter(torch.randn(width, width, modes, modes) / math.sqrt(width))
        self.spatial_mixing_1 = nn.Parameter(torch.randn(modes, modes, width) / math.sqrt(modes))
        self.spatial_mixing_2 = nn.Parameter(torch.randn(modes, modes, width) / math.sqrt(modes))
        self.act: Callable[[Tensor], Tensor] = _ACTS[act]
        self.residual = residual

    def forward(self, z: Tensor) -> Tensor:
        in_modes = z.permute(2, 3, 0, 1) @ self.ch_mixing_1.permute(2, 3, 0, 1)
        mixed = self.act(in_modes.permute(2, 3, 0, 1))
        mixed = self.spatial_mixing_1.permute(2, 1, 0) @ mixed
        mixed = mixed @ self.spatial_mixing_2.permute(2, 0, 1)
        return z + mixed if self.residual else mixed


class TransformOnce(nn.Module):
    """x [N, C, H, W] to [N, out_channels, H + padding, W + padding]: positions are lifted with it, `padding` of zeros
    comes behind, both as in the reference implementation, which works where H = W and leaves one channel out.

    Without `perform_inverse`, as in the authors' experiments, it gives as many modes in their place, those that it has
    not are 0. Its modes beyond the lowest are nothing: theirs with keep_high, whose weights look the same, is another
    network.
    """

    def __init__(  # noqa: PLR0913 - the reference implementation takes as many
        self,
        modes: int,
        width: int,
        in_channels: int,
        out_channels: int,
        *,
        nlayers: int = 4,
        padding: int = 0,
        act: str = "sin",
        residual: bool = True,
        perform_inverse: bool = True,
    ) -> None:
        super().__init__()
        self.fc0 = nn.Linear(2 + in_channels, width)
        layers = [TransformOnceLayer(modes, width, act=act, residual=residual) for _ in range(nlayers)]
        self.layers = nn.Sequential(*layers)
        self.fc1 = nn.Parameter(torch.randn(width, _HIDDEN) / math.sqrt(width))
        self.fc2 = nn.Parameter(torch.randn(_HIDDEN, out_channels) / math.sqrt(_HIDDEN))
        self.modes, self.padding, self.in_channels, self.perform_inverse = modes, padding, in_channels, perform_inverse

    def forward(self, x: Tensor) -> Tensor:
        height, width = (int(size) for size in x.shape[2:])
        if self.modes > min(height, width) + self.padding:
            raise ValueError(f"an image of {height}x{width} has no {self.modes} modes")
        rows, columns = (modes_of(size, self.modes, self.padding).to(x.device, x.dtype) for size in (height, width))
        lifted = self._lifted(rows @ x @ columns.T, height, width)
        made: Tensor = self._headed(self.layers(lifted))
        if not self.perform_inverse:
            return F.pad(made, (0, width + self.padding - self.modes, 0, height + self.padding - self.modes))
        back = [modes_of(size + self.padding, self.modes).to(x.device, x.dtype) for size in (height, width)]
        return back[0].T @ made @ back[1]

    def _lifted(self, z: Tensor, height: int, width: int) -> Tensor:
        """The lift in modes: what positions and the bias add is the same for every input."""
        weight = self.fc0.weight.double()
        steps = (torch.linspace(0, 1, size, dtype=torch.float64, device=z.device) for size in (height, width))
        grid = torch.stack(torch.meshgrid(*steps, indexing="ij"))
        added = torch.einsum("oc,chw->ohw", weight[:, self.in_channels :], grid) + self.fc0.bias.double()[:, None, None]
        rows, columns = (modes_of(size, self.modes, self.padding).to(z.device) for size in (height, width))
        own = self.fc0.weight[:, : self.in_channels, None, None]
        return F.conv2d(z, own) + (rows @ added @ columns.T).to(z.dtype)

    def _headed(self, z: Tensor) -> Tensor:
        hidden = torch.sin(F.conv2d(z, self.fc1.T[:, :, None, None]))
        return F.conv2d(hidden, self.fc2.T[:, :, None, None])


def _examples() -> Iterator[Example]:
    """Fewer modes than places and all of them, images that are not square, zeros behind, and a layer alone."""
    yield Example(TransformOnce(4, 8, 8, 3, nlayers=2), {"x": (8, 9, 12)})
    yield Example(TransformOnceLayer(4, 6), {"z": (6, 4, 4)})
    yield Example(TransformOnce(7, 5, 1, 1, nlayers=2, act="gelu"), {"x": (1, 7, 7)})
    yield Example(TransformOnce(5, 4, 3, 2, nlayers=1, padding=2), {"x": (3, 8, 6)})
    modes = TransformOnce(4, 5, 2, 2, nlayers=2, padding=1, residual=False, perform_inverse=False)
    yield Example(modes, {"x": (2, 6, 9)})


PART = Conv(
    paper="Transform Once: Efficient Operator Learning in Frequency Domain (NeurIPS 2022)",
    tier="T1",
    layers=(TransformOnceLayer, TransformOnce),
    examples=_examples,
    usual=lambda: Example(TransformOnce(24, 32, 1, 1), {"x": (1, 64, 64)}),
    kept={"Sin": "a wave of modes folds: an error of its input is one of its output"},
)
