"""One network quantized in several ways at once: one set of weights, and at each place what rounds it in each way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress import graph as graphs
from convkit.compress import patches
from convkit.compress.errors import ConvkitError
from convkit.compress.training.rounded import Bias, Dequantize, Quantize, Scale, Weight

if TYPE_CHECKING:
    from convkit.compress.training.steps import Units
    from convkit.compress.training.trainable import Network
    from convkit.compress.training.widths import Widths

_PLACES = ("_weight", "_quantize", "_dequantize", "_bias", "_norm")
"""Names of modules that a Network puts in the place of what rounds; all else is of all choices."""


class AtChoice(nn.Module):
    """What stands at one place of a network in each choice, by label, one of them at a time, or all of them by
    `shares`, one for each: then codes stay apart until they are numbers again, which are added."""

    def __init__(self, of: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleDict(of)
        self.label = next(iter(of))
        self.shares: Tensor | None = None
        self.mask: Tensor | None = None

    def forward(self, *given: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """That of the label which is chosen, less what a `mask` of zeros and ones leaves out, or of all."""
        if self.shares is None:
            found: Tensor = self.of[self.label](*given)
            return found if self.mask is None else found * self.mask
        ways = [
            one(*(each[at] if isinstance(each, tuple) else each for each in given))
            for at, one in enumerate(self.of.values())
        ]
        if isinstance(self.of[self.label], Quantize):
            return tuple(ways)
        return torch.stack([share * way for share, way in zip(self.shares, ways, strict=True)]).sum(0)


@dataclass(slots=True)
class Group:
    """Layers that are in one choice, and the places where what they are made of stands."""

    layers: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class Choices:
    """The same network quantized in several ways, `networks` by label, as one. Weights and biases are those of the
    first; `share` is told of each weight and that of the first. Scales of activations, their zero points and norms are
    each choice's own. Raises ConvkitError where the networks differ in more than how they round.

    `graph` computes what the network does in the choice that it is `at`, or in that of each of its `groups`, by the
    first layer of these: layers that read one tensor are in the same, and so are those that stand `together`. Beside
    formats the widths of its `channels` are chosen, where told.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        share: Callable[[Weight, Weight], None],
        together: Sequence[Sequence[str]] = (),
        channels: Widths | None = None,
    ) -> None:
        self.networks = dict(networks)
        self.first = next(iter(self.networks.values()))
        self.graph = self.first.graph
        for label, network in list(self.networks.items())[1:]:
            if network.graph.code != self.graph.code:
                # Such as integers whose zero is a ReLU's, beside floats.
                raise ConvkitError(
                    f"{next(iter(self.networks))} and {label} are computed by unlike networks on this target",
                    hint="leave one of them out, or give another --target",
                )
            _share(network, self.first, share)
        self.groups, self.channels = _groups(self.first, together), channels
        names = {id(module): name for name, module in _places(self.graph)}
        self._weights = {layer.key: (layer.node, names[id(layer.weight)]) for layer in self.first.layers}
        self._places: dict[str, AtChoice] = {}
        for name in [name for name, _ in _places(self.graph) if name.startswith(_PLACES)]:
            of = {label: network.graph.get_submodule(name) for label, network in self.networks.items()}
            self._places[name] = AtChoice(of)
            self.graph.set_submodule(name, self._places[name])

    def at(self, label: str) -> None:
        """Compute in this choice from here on."""
        for place in self._places.values():
            place.label = label

    def mixed(self, chosen: Mapping[str, str]) -> None:
        """Compute in the choice of each of these groups, and at these widths."""
        sizes = {} if self.channels is None else self.channels.sizes
        for group, label in chosen.items():
            for name in () if group in sizes else self.groups[group].places:
                self._places[name].label = label
                self._places[name].shares = None
        for layer, mask in ({} if self.channels is None else self.channels.masks(chosen)).items():
            node, place = self._weights[layer]
            self._places[place].mask = None if mask is None else patches.across_inputs(node, mask)

    def check_blends(self) -> None:
        """Raise ConvkitError where `blended` cannot be: an operator reads codes, which are of one choice."""
        places = {name for group in self.groups.values() for name in group.places}
        for node in self.graph.graph.nodes:
            if node.target in places and isinstance(
                self._places[node.target].of[self._places[node.target].label], Quantize
            ):
                reader = next((one for one in node.users if one.target not in places), None)
                if reader is not None:
                    raise ConvkitError(
                        f"{graphs.value(reader)} moves codes, which cannot be of all formats at once",
                        hint="leave out --by dnas",
                    )

    def blended(self, shares: Mapping[str, Tensor]) -> None:
        """Compute in all choices at once, by these shares of each of these groups."""
        for group, own in shares.items():
            for name in self.groups[group].places:
                self._places[name].shares = own

    def train(self) -> None:
        """Learn from here on."""
        self.first.train()

    def begin_norms(self, samples: Sequence[tuple[Tensor, ...]]) -> None:
        """Let the norms of each choice see what convolutions make of `samples` there, and begin with it."""
        for label, network in self.networks.items():
            self.at(label)
            with torch.no_grad():
                for batch in samples:
                    self.graph(*batch)
            network.started()
        self.at(next(iter(self.networks)))

    def units(self) -> Units:
        """How far weights and biases move, which are those of the first."""
        return self.first.units()

    def scales(self) -> dict[str, list[nn.Parameter]]:
        """What is learnt of scales in each choice."""
        return {
            label: list({id(one.log): one.log for place in _rounding(network) for one in _scales(place)}.values())
            for label, network in self.networks.items()
        }

    def labels(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """The choice of each layer, where that of these groups is `chosen` and all others are in the first."""
        usual = next(iter(self.networks))
        return {layer: chosen.get(name, usual) for name, group in self.groups.items() for layer in group.layers}

    def members(self, decided: Collection[str] = ()) -> dict[str, list[str]]:
        """The layers of each group, but for those of which one is `decided`."""
        return {name: group.layers for name, group in self.groups.items() if not {*decided} & {*group.layers}}

    def fill(self, network: Network, chosen: Mapping[str, str]) -> None:
        """Let `network`, whose layers are quantized as `labels` says, be settled with what was learnt."""
        of = self.labels(chosen)
        _share_floats(network, self.first)
        places = {} if self.channels is None else self.channels.places(chosen)
        for at, own in enumerate(network.layers):
            made, read = places.get(own.key, (None, None))
            own.take(self.networks[of[own.key]].layers[at], made, read)
        decided = {id(layer.reads): of[layer.key] for layer in self.first.layers}
        first, usual = self.first.reads(), next(iter(self.networks))
        reads = {label: one.reads() for label, one in self.networks.items()}
        for name, tensor in network.reads().items():
            tensor.rounds = reads[decided.get(id(first[name]), usual)][name].rounds


def _places(graph: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a network by name, also those that stand at several places."""
    return ((name, one) for name, one in graph.named_modules(remove_duplicate=False) if name and "." not in name)


def _groups(network: Network, together: Sequence[Sequence[str]]) -> dict[str, Group]:
    names: dict[int, list[str]] = {}
    readers: dict[int, list[str]] = {}
    for name, module in _places(network.graph):
        names.setdefault(id(module), []).append(name)
        if isinstance(module, Dequantize):
            readers.setdefault(id(module.of), []).append(name)
        elif isinstance(module, Bias):
            readers.setdefault(id(module.weight), []).append(name)
    found: dict[str, Group] = {}
    for key, of in _decided_with(network, together).items():
        group = found.setdefault(of, Group())
        layer = next(one for one in network.layers if one.key == key)
        group.layers.append(key)
        modules = [layer.weight, layer.norm, None if layer.reads is None else layer.reads.rounds]
        for module in filter(None, modules):
            group.places += [*names[id(module)], *readers.get(id(module), [])]
    return found


def _decided_with(network: Network, together: Sequence[Sequence[str]]) -> dict[str, str]:
    """The first of the layers that are decided with each layer."""
    first: dict[str, str] = {}

    def join(layers: Sequence[str]) -> None:
        ends = {first[layer] for layer in layers}
        least = next((key for key in first if key in ends), "")
        first.update({key: least for key, end in first.items() if end in ends})

    by_tensor: dict[int, list[str]] = {}
    for layer in network.layers:
        first[layer.key] = layer.key
        by_tensor.setdefault(id(layer.reads or layer), []).append(layer.key)
    for alike in (*by_tensor.values(), *together):
        join(alike)
    return first


def _share(network: Network, first: Network, share: Callable[[Weight, Weight], None]) -> None:
    for own, other in zip(network.layers, first.layers, strict=True):
        assert isinstance(own.weight, Weight)  # what is searched has scales  # noqa: S101
        assert isinstance(other.weight, Weight)  # noqa: S101
        share(own.weight, other.weight)
        own.bias, own.behind = other.bias, other.behind
    for mine, its in zip(_biases(network), _biases(first), strict=True):
        mine.bias = its.bias
    _share_floats(network, first)


def _biases(network: Network) -> list[Bias]:
    return [one for _, one in network.graph.named_children() if isinstance(one, Bias)]


def _share_floats(network: Network, first: Network) -> None:
    """Let layers that stay in float, biases, and what else is learnt, be one for both; not what no node calls, which
    may have other channels."""
    for node in network.graph.graph.nodes:
        name = str(node.target)
        path, _, last = name.rpartition(".")
        if node.op == "call_module" and not name.startswith(_PLACES):
            network.graph.set_submodule(name, first.graph.get_submodule(name))
        elif node.op == "get_attr" and isinstance(getattr(network.graph.get_submodule(path), last), nn.Parameter):
            setattr(network.graph.get_submodule(path), last, first.graph.get_parameter(name))


def _rounding(network: Network) -> Iterator[nn.Module]:
    for layer in network.layers:
        yield layer.weight
        if layer.norm is not None:
            yield layer.norm
    yield from network.roundings()


def _scales(place: nn.Module) -> Iterator[Scale]:
    yield from (one for one in place.modules() if isinstance(one, Scale))
