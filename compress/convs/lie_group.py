"""Convolutions over groups of matrices: a kernel that a small network computes at places which group elements move.

Mironenco and Forré, Lie Group Decompositions for Equivariant Neural Networks, ICLR 2024, equations 19-26. Elements are
drawn once and kept in buffers; frozen, every layer is an ordinary convolution, and equivariant as far as they reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example
from convkit.compress.convs._plane_groups import (
    DIMENSIONS,
    NEAR,
    check,
    coordinates,
    equal,
    inverse,
    kind_of,
    least_kind,
)

_SLOPE = 2.0


def places(size: int) -> Tensor:
    """Centres of a kernel's taps in a square from -1 to 1: [size, size, 2], x first. A single one lies at nothing."""
    line = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), -1)


class Siren(nn.Module):
    """Sines of linear layers, and a linear one behind: [P, features] to [P, made]."""

    def __init__(self, features: int, made: int, *, hidden: int = 64, layers: int = 2, w0: float = 10.0) -> None:
        super().__init__()
        self.w0 = w0
        sizes = [features, *[hidden] * (layers + 1)]
        self.net = nn.ModuleList(nn.Linear(read, out) for read, out in itertools.pairwise(sizes))
        self.final_linear = nn.Linear(hidden, made)
        for turn, layer in enumerate(self.net):
            bound = 1 / sizes[turn] if turn == 0 else math.sqrt(6 / sizes[turn]) / w0
            nn.init.uniform_(layer.weight, -bound, bound)  # type: ignore[arg-type]
            if turn:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = torch.sin(self.w0 * layer(x))
        made: Tensor = self.final_linear(x)
        return made


class _Group(Adopting):
    """`samples` [G, 2, 2] of the group; all but those of GL(2) leave areas as they are."""

    samples: Tensor

    def __init__(  # noqa: PLR0913 - a convolution's sizes, the group and the network that makes the kernel
        self,
        samples: Tensor,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        kind: str | None = None,
        hidden: int = 64,
        w0: float = 10.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kind = least_kind(samples) if kind is None else kind
        check(samples, self.kind)
        self.register_buffer("samples", samples)
        self.volume_preserving = self.kind != "gl2"
        self.inr = Siren(2 + self._beside(), in_channels * out_channels, hidden=hidden, w0=w0)
        bound = math.sqrt(6 / (hidden * in_channels)) / kernel_size
        nn.init.uniform_(self.inr.final_linear.weight, -bound, bound)
        nn.init.zeros_(self.inr.final_linear.bias)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.in_channels, self.size, self.padding = in_channels, kernel_size, padding

    def own(self, state: State) -> State:
        """Of rgenn's LiftGConv2d and GConv2d: whose samples are those that it saw last."""
        self._compare(state)
        names = {r"inr\.kernel_net\.net\.(\d+)\.linear\.": r"inr.net.\1.", r"inr\.kernel_net\..*\.act_layer\.a$": None}
        found = renamed(state, names | {r"(grid|g_tilde|g_inv)$": None, r"group\.": None})
        found |= self._elements(state) if state.keys() >= {"g_tilde", "g_inv"} else {}
        for name in found.keys() & {"samples", "out_samples"}:
            check(found[name], self.kind)
        return found

    def _beside(self) -> int:
        """Coordinates that the network reads beside those of a place."""
        return 0

    def _elements(self, state: State) -> State:
        return {"samples": inverse(state["g_inv"])}

    def _compare(self, state: State) -> None:
        """Raises ValueError for what the layer was not made for."""
        for name, tensor in state.items():
            if name.endswith(".act_layer.a") and abs(float(tensor) - self.inr.w0) > NEAR:
                raise ValueError(f"its network was trained with w0 {float(tensor):g}, not {self.inr.w0:g}: give w0")
        grid = state.get("grid")
        if grid is not None and not equal(grid, places(self.size).permute(2, 1, 0)):
            raise ValueError(f"its kernel's taps are not the {self.size}x{self.size} of grid_type 'affine'")
        kind = kind_of(state)
        if kind not in (None, self.kind):
            raise ValueError(f"its group is {kind}, not {self.kind}: give kind")

    def _moved(self, samples: Tensor) -> Tensor:
        """Places of the taps, moved by each sample's inverse: [G, k, k, 2]."""
        back: Tensor = torch.linalg.inv(samples.double())
        return places(self.size).to(back.device) @ back.mT.unsqueeze(1)

    def _mask(self, moved: Tensor, beside: Tensor) -> Tensor:
        """Taps beyond the circle count for nothing, or for less."""
        if self.volume_preserving:
            inside: Tensor = (moved.norm(dim=-1) <= 1).to(moved.dtype)
            return inside
        distance: Tensor = torch.cat((moved, beside), -1).norm(dim=-1)
        return torch.sigmoid(_SLOPE * (1 - distance))

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        """By a kernel [Cout, G, Cin, k, k]."""
        if not self.volume_preserving:
            areas = torch.linalg.det(self.samples.double()).abs().to(kernel.dtype)
            kernel = kernel / areas.reshape(-1, 1, 1, 1)
        bias = None if self.bias is None else self.bias.repeat_interleave(kernel.shape[1])
        return F.conv2d(x, kernel.flatten(0, 1).to(x.dtype), bias, padding=self.padding)


class LiftConv2d(_Group):
    """x [N, Cin, H, W] to [N, Cout G, H', W'], the samples of a channel together. `kind` of DIMENSIONS is whose the
    samples are, the least group that has them all unless told; `hidden` and `w0` are of the network that makes the
    kernel. Weights are rgenn's, of a LiftGConv2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        count, size = self.samples.shape[0], self.size
        moved = self._moved(self.samples)
        values = self.inr(moved.reshape(-1, 2).to(x.dtype)).reshape(count, size, size, -1, self.in_channels)
        masked = values * self._mask(moved, moved[..., :0]).to(x.dtype)[..., None, None]
        return self._convolved(x, masked.permute(3, 0, 4, 1, 2))


class GroupConv2d(_Group):
    """x [N, Cin G, H, W] to [N, Cout G, H', W'], the samples of a channel together, and the rest as LiftConv2d's.

    `out_samples` [G, 2, 2] are those of the output where they are not the input's, as of the last layer of rgenn's
    networks. `metric_alpha` scales the coordinates. Kernels of GL(2) are divided by the determinant of the input's
    sample that stands where the output's stands: by the paper it were each input's own, but weights are trained so.
    """

    out_samples: Tensor | None

    def __init__(  # noqa: PLR0913 - a convolution's sizes, the group and the network that makes the kernel
        self,
        samples: Tensor,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        out_samples: Tensor | None = None,
        padding: int = 0,
        kind: str | None = None,
        metric_alpha: float = 1.0,
        hidden: int = 64,
        w0: float = 10.0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            samples, in_channels, out_channels, kernel_size,
            padding=padding, kind=kind, hidden=hidden, w0=w0, bias=bias,
        )  # fmt: skip
        if metric_alpha <= 0:
            raise ValueError(f"GroupConv2d takes a metric_alpha above 0, not {metric_alpha:g}")
        if out_samples is not None:
            check(out_samples, self.kind)
            if out_samples.shape != samples.shape:
                raise ValueError(f"GroupConv2d takes as many out_samples as samples, {samples.shape[0]}")
        self.register_buffer("out_samples", out_samples)
        self.metric_alpha = metric_alpha

    def forward(self, x: Tensor) -> Tensor:
        out = self.samples if self.out_samples is None else self.out_samples
        count, size = out.shape[0], self.size
        between = torch.linalg.inv(out.double()).unsqueeze(1) @ self.samples.double()
        beside = coordinates(between, self.kind, self.metric_alpha)[:, :, None, None].expand(-1, -1, size, size, -1)
        moved = self._moved(out).unsqueeze(1).expand(-1, count, -1, -1, -1)
        whole = torch.cat((moved, beside), -1)
        values = self.inr(whole.reshape(-1, whole.shape[-1]).to(x.dtype))
        masked = (
            values.reshape(*whole.shape[:-1], -1, self.in_channels)
            * self._mask(moved, beside).to(x.dtype)[..., None, None]
        )
        return self._convolved(x, masked.permute(4, 0, 5, 1, 2, 3).flatten(2, 3))

    def _beside(self) -> int:
        return DIMENSIONS[self.kind]

    def _elements(self, state: State) -> State:
        read, out = state["g_tilde"], inverse(state["g_inv"])
        if self.out_samples is not None:
            return {"samples": read, "out_samples": out}
        if not equal(read, out):
            raise ValueError("the samples of its output are not the input's: give out_samples")
        return {"samples": read}

    def _compare(self, state: State) -> None:
        super()._compare(state)
        basis = state.get("group.basis.basis_matrix")
        if basis is None:
            return
        alpha = 1 / (2 * float(basis[0 if self.kind == "sl2" else 1, 0, 1]) ** 2)
        if abs(alpha - self.metric_alpha) > NEAR * alpha:
            raise ValueError(f"its metric_alpha is {alpha:g}, not {self.metric_alpha:g}: give metric_alpha")


class GroupPool(nn.Module):
    """x [N, C G, H, W] to [N, C, H, W]: the largest over a group of `count` samples."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, self.count, *x.shape[2:]).amax(2)


def _examples() -> Iterator[Example]:
    """Rotations, and matrices that stretch, with areas as they are or not; a lift, a group convolution and a pool in a
    row, also with other samples behind and with fewer options of a network.
    """
    turns = torch.tensor([0.0, 0.9, 2.2, -1.3])
    rotations = torch.stack((turns.cos(), -turns.sin(), turns.sin(), turns.cos()), -1).reshape(-1, 2, 2)
    stretches, others = torch.linalg.matrix_exp(0.4 * torch.randn(2, 3, 2, 2))
    sheared = stretches / torch.linalg.det(stretches).sqrt().reshape(-1, 1, 1)
    group = GroupConv2d(rotations, 3, 2, 3, padding=1, kind="so2")
    yield Example(_InRow(LiftConv2d(rotations, 2, 3, 5, padding=2, kind="so2"), group, GroupPool(4)), {"x": (2, 9, 12)})
    group = GroupConv2d(stretches, 3, 2, 3, padding=1, out_samples=others, metric_alpha=2.0)
    yield Example(_InRow(LiftConv2d(stretches, 2, 3, 5, padding=2), group, GroupPool(3)), {"x": (2, 8, 7)})
    group = GroupConv2d(sheared, 3, 2, 2, kind="sl2", hidden=8, bias=False)
    lift = LiftConv2d(sheared, 2, 3, 4, padding=1, kind="sl2", hidden=8, w0=6.0, bias=False)
    yield Example(_InRow(lift, group, GroupPool(3)), {"x": (2, 7, 8)})


class _InRow(nn.Module):
    """Layers that are one part's, one behind the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made


PART = Conv(
    paper="Lie Group Decompositions for Equivariant Neural Networks (ICLR 2024)",
    tier="T0",
    layers=(Siren, LiftConv2d, GroupConv2d, GroupPool),
    examples=_examples,
    usual=lambda: Example(LiftConv2d(torch.eye(2).repeat(10, 1, 1), 3, 32, 7, padding=3), {"x": (3, 32, 32)}),
)
