"""A form: a convolution as a chain of smaller ones, exact at full rank. Parts in `compress/forms`.

Every axis of a kernel is some one convolution's of the chain, with its stride, padding and dilation, so that padding
with zeros stays what it was; the bias is the last one's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, nearest

FOLDER = "compress/forms"
Conv = nn.modules.conv._ConvNd  # noqa: SLF001 - torch's only common class of 1-D to 3-D
Ranks = tuple[int, ...]
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One convolution of a chain: `weight` [out, in / groups, *kernel], geometry by axis."""

    weight: Tensor
    groups: int
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """What stands for a weight before training, where that is no chain: its `parameters`, and the parametrization (of
    torch.nn.utils.parametrize) that makes the weight of them, the last of which has a filter's size.
    """

    parameters: Callable[[Conv, Ranks], int]
    parametrization: Callable[[Conv, Ranks], nn.Module]


@dataclass(frozen=True, slots=True)
class Form:
    """`fits`: whether a convolution has this form. `full`: the ranks at which it is exact, each group of channels for
    itself. `spectra`: for each rank what is lost with every further direction, largest first; None where ranks have no
    order of their own. `parameters` of the chain without its bias. `factor`: the chain of a weight [groups, out, in,
    *kernel] in float64 that takes the convolution's place. `trained`: what takes it before training, if not the chain.
    """

    fits: Callable[[Conv], bool]
    full: Callable[[Conv], Ranks]
    parameters: Callable[[Conv, Ranks], int]
    factor: Callable[[Conv, Tensor, Ranks], list[Piece]]
    spectra: Callable[[Tensor], list[Tensor]] | None = None
    trained: Trained | None = None

    def learnt(self, conv: Conv, ranks: Ranks) -> int:
        """Parameters of the convolution before training."""
        return self.parameters(conv, ranks) if self.trained is None else self.trained.parameters(conv, ranks)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A form by name and its ranks; text is "tucker2:8,12"."""

    form: str
    ranks: Ranks

    def __str__(self) -> str:
        return f"{self.form}:{','.join(map(str, self.ranks))}"

    @classmethod
    def parse(cls, text: str) -> Chosen:
        """Raises ConvkitError for what names no form, or ranks that are none."""
        name, _, given = text.partition(":")
        parts.path(FOLDER, name, ".py")
        if not given or not all(rank.isdecimal() and int(rank) > 0 for rank in given.split(",")):
            raise ConvkitError(f"{text!r} says no ranks", hint=f"such as {name}:8")
        return cls(name, tuple(map(int, given.split(","))))

    @property
    def part(self) -> Form:
        """The form."""
        found: Form = parts.load(FOLDER, self.form)
        return found

    def fitted(self, name: str, known: Mapping[str, nn.Module]) -> Conv:
        """The layer `name` of those known, which may have the form. Raises ConvkitError where there is none such."""
        layer = known.get(name)
        if layer is None:
            raise ConvkitError(
                f"the network has no layer {name!r}", hint=nearest(name, known, "`convkit inspect` lists them")
            )
        if not is_plain(layer) or not self.part.fits(layer):
            kind = type(layer).__name__
            raise ConvkitError(f"layer {name!r}, a {kind}, has no form {self.form}", hint="leave it out")
        full = Chosen(self.form, self.part.full(layer))
        if len(self.ranks) != len(full.ranks):
            raise ConvkitError(
                f"{self.form} has {len(full.ranks)} ranks, not {len(self.ranks)} as for {name!r}",
                hint=f"such as {full}",
            )
        if any(rank > most for rank, most in zip(self.ranks, full.ranks, strict=True)):
            raise ConvkitError(f"{self} is more than the {full} at which {name!r} is exact", hint="give less")
        return layer


def is_plain(conv: nn.Module) -> TypeGuard[Conv]:
    """Whether `conv` is torch's own convolution, not transposed, padded with numbers of zeros; a class made of one may
    compute something else of its weight."""
    return (
        type(conv) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        and isinstance(conv, Conv)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def grouped(conv: Conv) -> Tensor:
    """The weight as [groups, out, in, *kernel], float64."""
    weight = conv.weight.detach().double()
    return weight.reshape(conv.groups, -1, *weight.shape[1:])


def sides(conv: Conv) -> tuple[int, int, tuple[int, ...]]:
    """Of a group: results, inputs, and the kernel."""
    return conv.out_channels // conv.groups, conv.in_channels // conv.groups, tuple(conv.kernel_size)


def pointwise(weight: Tensor, rank: int) -> Piece:
    """A 1x1 convolution of `weight` [groups, out, in] in `rank` axes."""
    groups, made, read = weight.shape
    ones, none = (1,) * rank, (0,) * rank
    return Piece(weight.reshape(groups * made, read, *ones), groups, ones, none, ones)


def along(conv: Conv, weight: Tensor, axes: Sequence[int], groups: int) -> Piece:
    """A convolution of `weight` [out, in / groups, *kernel of `axes`] with the geometry of `conv` along `axes`."""
    size = len(conv.kernel_size)
    kernel, lengths = [1] * size, iter(weight.shape[2:])
    for axis in axes:
        kernel[axis] = next(lengths)
    stride, dilation = (tuple(own[a] if a in axes else 1 for a in range(size)) for own in (conv.stride, conv.dilation))
    padding = tuple(int(conv.padding[a]) if a in axes else 0 for a in range(size))
    return Piece(weight.reshape(*weight.shape[:2], *kernel), groups, stride, padding, dilation)


def merged(chain: Sequence[Piece]) -> Tensor:
    """The kernel [out, in / groups, *kernel] that the chain has as one convolution: what it makes of single ones.

    Groups are those of the first piece or of the last one, whichever are fewer.
    """
    groups = min(chain[0].groups, chain[-1].groups)
    read = chain[0].weight.shape[1] * chain[0].groups
    rank = chain[0].weight.ndim - 2
    made = torch.eye(read, dtype=chain[0].weight.dtype).reshape(read, read, *[1] * rank)
    for piece in chain:
        reach = [size - 1 for size in piece.weight.shape[2:]]
        made = _CONV[rank](made, piece.weight, padding=reach, groups=piece.groups)
    kernel = made.flip([*range(2, 2 + rank)]).transpose(0, 1)
    each, inside = kernel.shape[0] // groups, read // groups
    parts = [kernel[g * each : (g + 1) * each, g * inside : (g + 1) * inside] for g in range(groups)]
    return torch.cat(parts)


def layers(chain: Sequence[Piece], like: Conv, bias: Tensor | None = None) -> list[Conv]:
    """The chain as modules of the kind and type of `like`; `bias`, that of `like` by default, is the last one's."""
    made: list[Conv] = []
    bias = like.bias if bias is None else bias
    for place, piece in enumerate(chain):
        out, read = piece.weight.shape[0], piece.weight.shape[1] * piece.groups
        biased = bias is not None and place == len(chain) - 1
        geometry = piece.stride, piece.padding, piece.dilation, piece.groups
        kernel = piece.weight.shape[2:]
        layer = type(like)(read, out, kernel, *geometry, bias=biased, dtype=like.weight.dtype)  # type: ignore[arg-type, call-arg]  # of any rank
        with torch.no_grad():
            layer.weight.copy_(piece.weight)
            if layer.bias is not None and bias is not None:
                layer.bias.copy_(bias)
        made.append(layer.train(like.training))
    return made


def held(chain: Sequence[Piece]) -> int:
    """Parameters of the chain."""
    return sum(piece.weight.numel() for piece in chain)


def ranks(form: Form, conv: Conv, share: float, step: int = 1) -> Ranks | None:
    """The ranks that lose least with at most `share` of the convolution's weights; None where there are none.

    Where there are several they are cut at one level of what is lost. Those of `step` and more are multiples of it.
    """
    most, full = share * conv.weight.numel(), form.full(conv)
    if form.spectra is None:
        found = range(full[0], 0, -1)
        return next(((r,) for r in found if _steps(r, step) == r and form.parameters(conv, (r,)) <= most), None)
    spectra = form.spectra(grouped(conv))
    levels = torch.cat([one.square().flip(0).cumsum(0) for one in spectra]).sort().values
    low, high, best = 0, len(levels) - 1, None
    while low <= high:
        middle = (low + high) // 2
        tried = tuple(_steps(_kept(one, float(levels[middle])), step) for one in spectra)
        if form.parameters(conv, tried) <= most:
            best, high = tried, middle - 1
        else:
            low = middle + 1
    return best


def _kept(spectrum: Tensor, level: float) -> int:
    """Directions to keep so that what the others hold is `level` at most; one at least."""
    lost = spectrum.square().flip(0).cumsum(0)
    return max(1, len(spectrum) - int((lost <= level).sum()))


def _steps(rank: int, step: int) -> int:
    return rank if rank < step else math.floor(rank / step) * step


def refitted(chain: Sequence[Piece], weight: Tensor, moment: Tensor, rounds: int = 50) -> list[Piece]:
    """The chain with the least squared error of its outputs that is found from here: sum of (W' - W) H (W' - W)ᵀ.

    `weight` [groups, out, k]; `moment` H [groups, k, k]: the second moment of what a group of channels reads.
    """
    factors = [piece.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for piece in chain]
    ends = {"tolerance_grad": 0.0, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
    descent = torch.optim.LBFGS(factors, max_iter=rounds, **ends)  # type: ignore[arg-type]
    unit = 1 / ((weight @ moment) * weight).sum().clamp(min=1e-30)

    def error() -> Tensor:
        descent.zero_grad()
        off = merged(_with(chain, factors)).reshape(weight.shape) - weight
        lost = ((off @ moment) * off).sum() * unit
        lost.backward()  # type: ignore[no-untyped-call]
        return lost.detach()

    before = [factor.detach().clone() for factor in factors]
    first = error().item()
    descent.step(error)  # type: ignore[no-untyped-call]
    kept = [factor.detach() for factor in factors] if error().item() <= first else before
    return _with(chain, kept)


def _with(chain: Sequence[Piece], factors: Sequence[Tensor]) -> list[Piece]:
    return [
        Piece(factor, piece.groups, piece.stride, piece.padding, piece.dilation)
        for piece, factor in zip(chain, factors, strict=True)
    ]
