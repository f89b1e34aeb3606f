"""What of an elastic network may be chosen, and what was: widths, blocks that are left out, kernels."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx, nn

from convkit.compress.shrinking import residual
from convkit.compress.shrinking.coupling import Coupling, coupling
from convkit.compress.shrinking.residual import Block

_LEAST_KERNEL = 3
Conv = nn.modules.conv._ConvNd  # noqa: SLF001 - torch's only common class of 1-D to 3-D


@dataclass(frozen=True, slots=True)
class Choice:
    """A member: `widths` of families that are narrower, `out`, blocks that are left out, and smaller `kernels`."""

    widths: Mapping[str, int] = field(default_factory=dict)
    out: tuple[str, ...] = ()
    kernels: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """The same for equal choices."""
        return tuple(self.widths.items()), self.out, tuple(self.kernels.items())


@dataclass(frozen=True, slots=True)
class Space:
    """What may be chosen: `widths` of families, `stages` of blocks, `kernels` of layers; the largest first."""

    widths: Mapping[str, tuple[int, ...]]
    stages: tuple[tuple[Block, ...], ...]
    kernels: Mapping[str, tuple[int, ...]]

    @property
    def whole(self) -> Choice:
        """The network itself."""
        return Choice()

    @property
    def least(self) -> Choice:
        """The smallest member: the first block of a stage always stays."""
        return self._at(lambda sizes: len(sizes) - 1)

    def between(self, part: float) -> Choice:
        """The member that is so far from the whole to the least, in all its sizes."""
        return self._at(lambda sizes: round(part * (len(sizes) - 1)))

    def drawn(self, chance: random.Random, *, compound: bool = False) -> Choice:
        """A random member; `compound`: all sizes alike (Sahni et al., CompOFA, ICLR 2021)."""
        if compound:
            level = chance.random()
            return self._at(lambda sizes: min(len(sizes) - 1, int(level * len(sizes))))
        return self._at(lambda sizes: chance.randrange(len(sizes)))

    def crossed(self, one: Choice, other: Choice, chance: random.Random, mutated: float) -> Choice:
        """A member that has each size of one of the two, or with the chance `mutated` any other."""
        sizes = [*self._sizes(one), *self._sizes(other)]
        half = len(sizes) // 2
        places = iter(sizes[at if chance.random() < 0.5 else at + half] for at in range(half))  # noqa: PLR2004 - half

        def place(known: Sequence[object]) -> int:
            taken = next(places)
            return chance.randrange(len(known)) if chance.random() < mutated else taken

        return self._at(place)

    def _sizes(self, choice: Choice) -> list[int]:
        """The place of every size of `choice` among those there are, in the order of `_at`."""
        widths = [sizes.index(choice.widths.get(name, sizes[0])) for name, sizes in self.widths.items()]
        kernels = [sizes.index(choice.kernels.get(name, sizes[0])) for name, sizes in self.kernels.items()]
        blocks = [sum(block.name in choice.out for block in stage) for stage in self.stages]
        return [*widths, *kernels, *blocks]

    def _at(self, place: Callable[[Sequence[object]], int]) -> Choice:
        widths = {name: sizes[place(sizes)] for name, sizes in self.widths.items()}
        kernels = {name: sizes[place(sizes)] for name, sizes in self.kernels.items()}
        out: list[str] = []
        for stage in self.stages:
            count = place(range(len(stage)))
            out += [block.name for block in stage[len(stage) - count :]] if count else []
        return Choice(
            {name: width for name, width in widths.items() if width != self.widths[name][0]},
            tuple(out),
            {name: size for name, size in kernels.items() if size != self.kernels[name][0]},
        )


def space(graph: fx.GraphModule, shares: Sequence[float], step: int, *, depth: bool, kernel: bool) -> Space:
    """What members of `graph`, whose nodes have shapes, may be: widths of about these `shares`, multiples of `step`."""
    blocks = residual.blocks(graph) if depth else ()
    layers = {name: layer for name, layer in graph.named_modules() if isinstance(layer, Conv)} if kernel else {}
    kernels = {name: known for name, layer in layers.items() if len(known := _kernels(layer)) > 1}
    return Space(widths(coupling(graph), shares, step), tuple(residual.stages(blocks)), kernels)


def widths(coupled: Coupling, shares: Sequence[float], step: int) -> dict[str, tuple[int, ...]]:
    """Of each family with several, its widths: about these `shares`, multiples of `step`, the largest first."""
    found = {}
    for family in coupled.families:
        size = min(family.channels)
        each = max(size, step // size * size) if size < step else size
        sizes = [family.width, *(max(each, round(share * family.width / each) * each) for share in shares)]
        found[family.name] = tuple(sorted({s for s in sizes if s <= family.width}, reverse=True))
    return {name: sizes for name, sizes in found.items() if len(sizes) > 1}


def _kernels(layer: Conv) -> tuple[int, ...]:
    """Odd sizes from the layer's own to 3, where it has one on all axes and pads so that sizes stay."""
    size = layer.kernel_size[0]
    same = {*layer.kernel_size} == {size} and size % 2 and not isinstance(layer.padding, str)
    if not same or any(2 * int(str(p)) != d * (size - 1) for p, d in zip(layer.padding, layer.dilation, strict=True)):
        return (size,)
    return tuple(range(size, _LEAST_KERNEL - 1, -2)) if size > _LEAST_KERNEL else (size,)
