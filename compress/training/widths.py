"""Widths that are searched while a network is trained: of families of channels, beside the formats of its layers.

Dotzel et al., FLIQS (AutoML 2024) searches both together; how widths are trained is our own. A network with fewer
channels is the whole one, whose layers have weights of zero for channels they read that are not there, whatever these
hold; in the end they are cut away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, clone
from convkit.compress.shrinking import cutting, levels, shrink
from convkit.compress.shrinking.classes import Along
from convkit.compress.shrinking.coupling import Family, coupling, is_dense, of_clone
from convkit.compress.shrinking.worth import worth
from convkit.compress.training import choice

if TYPE_CHECKING:
    from convkit.compress.method import Batches

STEP = 8
"""What widths are multiples of, where layers have as many channels."""
_SAME = 1e-3
"""Of the largest output: how far a masked network may be from the one that is cut, for it to be the same."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a layer's products is there: of the channels that it makes and, where every output reads every input, of
    those that it reads. By family, how many are gone at each of its widths; `made` and `read` of so many.
    """

    made: int
    read: int
    gone_made: Mapping[str, tuple[int, ...]]
    gone_read: Mapping[str, tuple[int, ...]]

    @property
    def families(self) -> tuple[str, ...]:
        """Those that it hangs on."""
        return tuple(dict.fromkeys([*self.gone_made, *self.gone_read]))

    def left(self, places: Mapping[str, int]) -> float:
        """Where these families have the width at that place; from 0 to 1."""
        read = self.read - sum(gone[places[name]] for name, gone in self.gone_read.items())
        return self.left_made(places) * (read / self.read)

    def left_made(self, places: Mapping[str, int]) -> float:
        """Of what it makes."""
        return (self.made - sum(gone[places[name]] for name, gone in self.gone_made.items())) / self.made


class Widths:
    """Families of the prepared network `exact` that may have other widths, by decision, the largest width first.

    `layers`: those with a weight that is in training; a family that is of others as well is `kept` as it is, and so is
    one which, masked, computes another network than without its channels. Widths are about these `shares` of the
    channels, in multiples of `step`; `samples` rank them.
    """

    def __init__(
        self, exact: Model, layers: Collection[str], shares: Sequence[float], samples: Batches, step: int = STEP
    ) -> None:
        self._coupled, self._layers = coupling(exact.graph), set(layers)
        self._worth = worth(exact, self._coupled, samples)
        sizes = choice.widths(self._coupled, shares, step)
        free = {family.name: family for family in self._coupled.families if family.name in sizes}
        free = {name: family for name, family in free.items() if self._is_in_training(family)}
        least = {name: sizes[name][-1] for name in free}
        empty = self._alone(least) - levels.never_empty(self._coupled, self._alone(least), self._worth)
        free = {name: one for name, one in free.items() if not empty & {*one.classes}}
        if not self._is_masked_alike(exact, {name: least[name] for name in free}, samples):
            free = {
                name: one for name, one in free.items() if self._is_masked_alike(exact, {name: least[name]}, samples)
            }
        if not free:
            raise ConvkitError(
                f"{exact.name} has no channels of which layers can have fewer",
                hint="leave out --widths; it is for channels between layers whose formats are searched",
            )
        self.kept = tuple(name for name in sizes if name not in free)
        self.families = {_named(name): family for name, family in free.items()}
        self.sizes = {_named(name): sizes[name] for name in free}
        self._gone = {
            name: [self._classes({family.name: size}) for size in self.sizes[name]]
            for name, family in self.families.items()
        }

    def _alone(self, widths: Mapping[str, int]) -> frozenset[int]:
        """The classes that are gone at these widths of families."""
        whole = {family.name: family.width for family in self._coupled.families}
        less = {name: width for name, width in widths.items() if width < whole[name]}
        return frozenset().union(
            *(shrink.gone(self._coupled, self._worth, {name: width}) for name, width in less.items())
        )

    def _classes(self, widths: Mapping[str, int]) -> Tensor:
        return torch.tensor(sorted(self._alone(widths)), dtype=torch.int64)

    def _is_in_training(self, family: Family) -> bool:
        """Whether no other weights, norms or constants have its channels."""
        own = torch.tensor(family.classes)

        def has(labels: Tensor) -> bool:
            return bool(torch.isin(labels, own).any())

        held = [(node, along) for node, along in self._coupled.known.items() if node.op in ("call_module", "get_attr")]
        others = [along for node, along in held if graphs.key(node) not in self._layers]
        others += [along for node, along in self._coupled.reads.items() if graphs.key(node) not in self._layers]
        return not any(has(one.labels) for along in others for one in _each(along))

    def _is_masked_alike(self, exact: Model, widths: Mapping[str, int], samples: Batches) -> bool:
        gone, inputs = self._alone(widths), tuple(samples[0][spec.name] for spec in exact.inputs)
        made = []
        for how in (cutting.masked, cutting.cut):
            own = clone(exact.graph)
            how(own, of_clone(self._coupled, exact.graph, own), gone)
            own.recompile()
            with torch.no_grad():
                made.append(own.eval()(*inputs))
        return all(
            one.shape == other.shape and float((one - other).abs().max()) <= _SAME * float(other.abs().max())
            for one, other in zip(*made, strict=True)
        )

    def chosen(self, decided: Mapping[str, str]) -> dict[str, int]:
        """The width of each family that is narrower, as plans tell it, where the widths that are `decided` hold."""
        wide = {self.families[name]: int(decided[name]) for name in self.families}
        return {family.name: width for family, width in wide.items() if width < family.width}

    def gone(self, decided: Mapping[str, str]) -> Tensor:
        """Classes of channels that are not there."""
        found = [self._gone[name][sizes.index(int(decided[name]))] for name, sizes in self.sizes.items()]
        return torch.cat(found)

    def masks(self, decided: Mapping[str, str]) -> dict[str, Tensor | None]:
        """By layer that reads channels of these families, float32 [inputs]: 1 where its input is there; None where all
        are."""
        out, found = self.gone(decided), dict[str, Tensor | None]()
        for node, along in self._dense():
            mask = ~torch.isin(along.labels, out)
            found[graphs.key(node)] = None if bool(mask.all()) else mask.float()
        return found

    def places(self, decided: Mapping[str, str]) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """By layer, the places of the channels that it makes, and that every output of it reads, which are there; None
        where all are."""
        out, found = self.gone(decided), {}
        dense = dict(self._dense())
        for node, along in self._coupled.known.items():
            if graphs.key(node) in self._layers and node.op == "call_module":
                (made,) = _each(along)
                found[graphs.key(node)] = cutting.kept(made, out), cutting.kept(dense.get(node), out)
        return found

    def parts(self) -> dict[str, Part]:
        """Of every layer that has channels of these families."""
        found = {}
        dense = dict(self._dense())
        for node, along in self._coupled.known.items():
            if graphs.key(node) in self._layers and node.op == "call_module":
                (made,) = _each(along)
                read = dense[node].labels if node in dense else made.labels[:1]
                part = Part(len(made.labels), len(read), self._counts(made.labels), self._counts(read, node in dense))
                if part.families:
                    found[graphs.key(node)] = part
        return found

    def _counts(self, labels: Tensor, counted: bool = True) -> dict[str, tuple[int, ...]]:
        found = {name: tuple(int(torch.isin(labels, one).sum()) for one in gone) for name, gone in self._gone.items()}
        return {name: counts for name, counts in found.items() if counted and any(counts)}

    def _dense(self) -> Iterator[tuple[fx.Node, Along]]:
        for node, along in self._coupled.reads.items():
            if graphs.key(node) in self._layers and is_dense(node):
                yield node, along


def _each(along: object) -> Iterator[Along]:
    for one in along if isinstance(along, tuple) else (along,):
        if one is not None:
            yield one


def _named(family: str) -> str:
    """A decision: its layer is one of a format already."""
    return f"{family}, width"
