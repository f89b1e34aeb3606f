"""SGConv: a global convolution over a series, whose kernel is made of few numbers at scales that double.

Li et al., What Makes Convolutional Models Great on Long Sequence Modeling?, ICLR 2023, section 3. Trained, it is a
depthwise convolution as long as the series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State
from convkit.compress.conv import Conv, Example

MODES = ("cat", "sum")
ACTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "relu": F.relu, "silu": F.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh
}  # fmt: skip


class GConv(Adopting):
    """u [N, H, L], L at most what its kernels span, and as many of `channels` kernels for each feature. Names and their
    shapes are those of the reference implementation: kernel_list [channels, H, d] a scale, D, multiplier, kernel_norm.

    A kernel is divided by the norm that the first one ever had, which a buffer holds from the first forward pass in
    training on; before, it is divided by its own. The reference implementation holds it in evaluation too.
    `bidirectional`: twice the kernels, the second half for what is yet to come. `activation`, of ACTS, and
    `interpolation` are not seen in weights.
    """

    multiplier: Tensor
    kernel_norm: Tensor
    kernel_norm_initialized: Tensor

    def __init__(  # noqa: PLR0913 - the reference implementation takes as many
        self,
        d_model: int,
        l_max: int,
        *,
        channels: int = 1,
        bidirectional: bool = False,
        kernel_dim: int = 64,
        decay: tuple[float, float] = (2.0, 2.0),
        mode: str = "cat",
        interpolation: str = "linear",
        init_scale: int = 0,
        gated: bool = False,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"SGConv's kernels are put together by {' or '.join(MODES)}, not {mode!r}")
        if activation not in ACTS:
            raise ValueError(f"SGConv's activation is one of {', '.join(ACTS)}, not {activation!r}")
        if min(d_model, l_max, kernel_dim, channels) < 1:
            raise ValueError(f"SGConv of {d_model} features, length {l_max}, kernels of {kernel_dim} has nothing to do")
        self.channels, self.bidirectional, self.mode = channels, bidirectional, mode
        self.interpolation, self.init_scale, self.activation = interpolation, init_scale, activation
        scales = max(1, 1 + math.ceil(math.log2(l_max / kernel_dim)) - init_scale)
        kernels = channels * (2 if bidirectional else 1)
        self.D = nn.Parameter(torch.randn(channels, d_model))
        self.kernel_list = nn.ParameterList(
            nn.Parameter(torch.randn(kernels, d_model, kernel_dim)) for _ in range(scales)
        )
        self.register_buffer("multiplier", torch.linspace(*decay, d_model).reshape(1, -1, 1))
        self.register_buffer("kernel_norm", torch.ones(kernels, d_model, 1))
        self.register_buffer("kernel_norm_initialized", torch.tensor(False))
        linear = _Mixed(d_model * channels, d_model * (2 if gated else 1))
        self.output_linear = nn.Sequential(linear, nn.GLU(1)) if gated else linear

    def own(self, state: State) -> State:
        # Theirs that never ran has a norm of another shape, which it does not use.
        known, norm = state.get("kernel_norm_initialized"), state.get("kernel_norm")
        if known is None or norm is None or known or norm.shape == self.kernel_norm.shape:
            return state
        return state | {"kernel_norm": norm.new_ones(self.kernel_norm.shape)}

    def kernel(self, length: int) -> Tensor:
        """[kernels, H, length], each over its norm; beyond what they span it is nothing."""
        found: list[Tensor] = []
        for turn, kernel in enumerate(self.kernel_list):
            weighted = kernel * self.multiplier ** (len(self.kernel_list) - turn - 1)
            doubled = turn if self.mode == "sum" else max(0, turn - 1)
            found.append(self._stretched(weighted, 2 ** (doubled + self.init_scale)))
        if self.mode == "cat":
            whole = torch.cat(found, -1)
        else:
            longest = found[-1].shape[-1]
            whole = torch.stack([F.pad(each, (0, longest - each.shape[-1])) for each in found]).sum(0)
        cut = whole[..., :length]
        return F.pad(cut, (0, length - cut.shape[-1])) / self._norm(whole)

    def _norm(self, kernel: Tensor) -> Tensor:
        norm = torch.where(self.kernel_norm_initialized, self.kernel_norm, kernel.norm(dim=-1, keepdim=True))
        if not self.training:
            return norm
        # Without a branch on the flag, and no buffer that a later pass writes to is kept for gradients.
        norm = norm.detach()
        self.kernel_norm.copy_(norm)
        self.kernel_norm_initialized.fill_(value=True)
        return norm

    def _stretched(self, kernel: Tensor, factor: int) -> Tensor:
        return F.interpolate(kernel, scale_factor=float(factor), mode=self.interpolation) if factor > 1 else kernel

    def forward(self, u: Tensor) -> Tensor:
        if u.ndim != 3 or u.shape[1] != self.D.shape[1]:  # noqa: PLR2004 - N, H, L
            raise ValueError(f"GConv takes [N, {self.D.shape[1]}, L], not {list(u.shape)}")
        length = u.shape[-1]
        kernel = self.kernel(length)
        taps, ahead = kernel[: self.channels].flip(-1), 0
        if self.bidirectional:
            taps, ahead = torch.cat((taps, kernel[self.channels :]), -1), length
        padded = F.pad(u, (length - 1, ahead))
        made = [
            F.conv1d(padded, own.unsqueeze(1), groups=len(own)) + u * skip.reshape(-1, 1)
            for own, skip in zip(taps, self.D, strict=True)
        ]
        mixed: Tensor = self.output_linear(ACTS[self.activation](torch.cat(made, 1)))
        return mixed


class _Mixed(nn.Module):
    """A linear layer over axis 1."""

    def __init__(self, read: int, made: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(read)
        self.weight = nn.Parameter(torch.empty(made, read).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(made).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight.unsqueeze(-1), self.bias)


def _examples() -> Iterator[Example]:
    """Both ways to put scales together, both directions, a gate, series shorter and longer than the kernel."""
    yield Example(GConv(4, 64, kernel_dim=8), {"u": (4, 64)})
    yield Example(GConv(3, 32, kernel_dim=8, mode="sum", decay=(0.5, 2.0), activation="silu"), {"u": (3, 27)})
    yield Example(GConv(4, 32, kernel_dim=4, channels=2, bidirectional=True, gated=True), {"u": (4, 40)})
    known = GConv(2, 16, kernel_dim=4, interpolation="nearest", init_scale=1)
    nn.init.uniform_(known.kernel_norm, 0.5, 2.0)
    known.kernel_norm_initialized.fill_(True)
    yield Example(known, {"u": (2, 16)})


PART = Conv(
    paper="What Makes Convolutional Models Great on Long Sequence Modeling? (ICLR 2023)",
    tier="T0",
    layers=(GConv,),
    examples=_examples,
    usual=lambda: Example(GConv(64, 1024), {"u": (64, 1024)}),
)
