"""Linear state space layers: a long convolution whose kernel is what a small linear system answers to an impulse.

Gu et al., Combining Recurrent, Convolutional, and Continuous-time Models with Linear State Space Layers, NeurIPS 2021,
equations 1-6. One network in two forms: over a whole series it is a convolution with a kernel that is known, sample by
sample a recurrence with a state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State
from convkit.compress.conv import Conv, Example

_SYSTEM, _CONSTANTS = "transition.", ("I", "ones", "arange")
_DENSE, _FAST = {"A": "A", "B": "B", "a": "A", "b": "B"}, ("dl", "d", "du", "pl", "pr", "c", "b")
"""What the reference implementation's transitions are called, and store."""


def hippo_legs(order: int) -> tuple[Tensor, Tensor]:
    """The matrices A [order, order] and B [order] that keep the past of a signal as Legendre coefficients."""
    root = torch.sqrt(2 * torch.arange(order, dtype=torch.float64) + 1)
    matrix = torch.tril(torch.outer(root, root), -1) + torch.diag(torch.arange(1, order + 1, dtype=torch.float64))
    return -matrix, root


class LSSL(Adopting):
    """u [N, H, L] to as much: `channels` outputs of a system of `order` for every feature, mixed by a linear layer.

    It loads what both layers of the reference implementation save (state-spaces/s4): StateSpace, which takes [L, N, H],
    and Platypus with gelu, without bias and with one transition for all features, which takes [N, L, H]. Theirs works
    the kernel out in single precision, in which powers of a matrix of a high order lose digits.
    """

    A: Tensor
    B: Tensor
    dt: Tensor

    def __init__(
        self, d_model: int, *, order: int = 64, channels: int = 1, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> None:
        super().__init__()
        matrix, vector = hippo_legs(order)
        self.register_buffer("A", matrix)
        self.register_buffer("B", vector)
        steps = torch.rand(d_model, dtype=torch.float64) * math.log(dt_max / dt_min) + math.log(dt_min)
        self.register_buffer("dt", steps.exp())
        self.C = nn.Parameter(torch.randn(d_model, channels, order) / math.sqrt(order))
        self.D = nn.Parameter(torch.randn(d_model, channels))
        self.output_linear = nn.Linear(d_model * channels, d_model)

    def own(self, state: State) -> State:
        found = {name: tensor for name, tensor in state.items() if not name.startswith(_SYSTEM)}
        if "log_dt" in found:
            found["dt"] = found.pop("log_dt").exp()
        theirs = {name.removeprefix(_SYSTEM): tensor for name, tensor in state.items() if name.startswith(_SYSTEM)}
        return found | _system(theirs)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """A [H, order, order] and B [H, order] of one step of each feature's length, by the trapezoidal rule, in double
        precision whatever the layer is in.
        """
        matrix, vector, steps = self.A.double(), self.B.double(), self.dt.double()
        half = steps.reshape(-1, 1, 1) / 2 * matrix
        eye = torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
        inverse = torch.linalg.inv(eye - half)
        return inverse @ (eye + half), inverse @ vector * steps.reshape(-1, 1)

    def kernel(self, length: int) -> Tensor:
        """[H, channels, length], in double precision: powers of a matrix lose digits."""
        power, vector = self.discrete()
        krylov = vector.unsqueeze(-1)
        while krylov.shape[-1] < length:
            krylov = torch.cat((krylov, power @ krylov), -1)
            power = power @ power
        return self.C.double() @ krylov[..., :length]

    def forward(self, u: Tensor) -> Tensor:
        features, channels, _ = self.C.shape
        if u.ndim != 3 or u.shape[1] != features:  # noqa: PLR2004 - N, H, L
            raise ValueError(f"LSSL takes [N, {features}, L], not {list(u.shape)}")
        length = u.shape[-1]
        taps = self.kernel(length).to(u.dtype)
        # What passes by is one tap more: the first.
        taps = torch.cat((taps[..., :1] + self.D.unsqueeze(-1), taps[..., 1:]), -1).flip(-1)
        made = F.conv1d(F.pad(u, (length - 1, 0)), taps.reshape(features * channels, 1, -1), groups=features)
        return F.conv1d(F.gelu(made), self.output_linear.weight.unsqueeze(-1), self.output_linear.bias)


def _system(stored: State) -> State:
    """A and B of what a transition of the reference implementation stores: themselves, or, where it is fast, three
    diagonals of a matrix whose inverse, with `c` on its diagonal and between two scales, is -A.
    """
    if not stored.keys() >= {*_FAST}:
        return {_DENSE.get(name, _SYSTEM + name): tensor for name, tensor in stored.items() if name not in _CONSTANTS}
    if stored["d"].ndim != 1:
        raise ValueError("an LSSL has one transition for all features, not one for each (learn=2)")
    low, middle, high, left, right, own, vector = (stored[name].double() for name in _FAST)
    whole = torch.diag(middle) + torch.diag(low[1:-1], -1) + torch.diag(high[1:-1], 1)
    return {"A": -left[:, None] * (torch.linalg.inv(whole) + torch.diag(own)) * right, "B": left * vector}


class StreamingLSSL(nn.Module):
    """The same layer for one sample: u [N, H] and the state [N, H, order] to y [N, H] and the state behind it."""

    def __init__(self, layer: LSSL) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        matrix, vector = (each.to(u.dtype) for each in self.layer.discrete())
        state = (matrix @ state.unsqueeze(-1)).squeeze(-1) + vector * u.unsqueeze(-1)
        seen = (self.layer.C @ state.unsqueeze(-1)).squeeze(-1) + self.layer.D * u.unsqueeze(-1)
        made: Tensor = self.layer.output_linear(F.gelu(seen.flatten(1)))
        return made, state


class _Step(nn.Module):
    """One step's output and state, one row."""

    def __init__(self, layer: StreamingLSSL) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor, state: Tensor) -> Tensor:
        made, after = self.layer(u, state)
        return torch.cat((made, after.flatten(1)), 1)


def _examples() -> Iterator[Example]:
    """Series of odd and even lengths, more outputs than one, and a step."""
    yield Example(LSSL(4, order=8), {"u": (4, 32)})
    yield Example(LSSL(3, order=16, channels=2), {"u": (3, 45)})
    yield Example(_Step(StreamingLSSL(LSSL(3, order=8, channels=2))), {"u": (3,), "state": (3, 8)})


PART = Conv(
    paper="Linear State Space Layers (NeurIPS 2021)",
    tier="T0",
    layers=(LSSL, StreamingLSSL),
    examples=_examples,
    usual=lambda: Example(LSSL(64), {"u": (64, 1024)}),
    kept={"MatMul": "an error of a state stays in it"},
)
