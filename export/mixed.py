"""A network whose layers differ in width, of a file of many widths: chosen within bit operations and made without data.

Networks of all widths are alike but for what rounds. Nodes that round what a layer reads, its weight and its bias are
those of the layer's width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convkit.compress import schema
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.compress.option import Option
from convkit.compress.search import budget
from convkit.compress.search.problem import Cost, Problem, meets
from convkit.export import artifact, switched

if TYPE_CHECKING:
    import onnx

    from convkit.compress.budget import Budget

_KEY = "decisions"
_DECISION: schema.Types = {"layers": list, "loss": dict, "bops": dict}
_ALL: schema.Types = {"of": list, "rest": (int, float), "original": (int, float)}
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_LAID_OUT = ("DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze")
MOVES = frozenset((*_LAID_OUT, "MaxPool", "Pad", "Resize", "Slice", "Split"))
"""Operators that only move numbers: what they read and make has one scale."""
_MOST = 1e24
"""A loss, or bit operations, that no network has; sums of what is less stay finite."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`layers` that are of one width, what they lose and their bit operations at each, by bits."""

    layers: Sequence[str]
    loss: Mapping[str, float]
    bops: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Decisions:
    """All of a network; `rest`: bit operations of its other layers, `original`: those of the network in float."""

    of: Sequence[Decision]
    rest: float
    original: float

    def told(self) -> dict[str, Any]:
        """For the file's metadata."""
        return {_KEY: asdict(self)}


def decisions(file: onnx.ModelProto) -> Decisions:
    """Those that the file was trained for. Raises ConvkitError where it was trained for none, or they are damaged."""
    told = switched.told(file).get(_KEY)
    if told is None:
        raise ConvkitError("its layers are all of one width", hint="train it with --mixed")
    try:
        found = schema.fields("it", told, _ALL, tuple(_ALL))
        widths = {str(bits) for bits in switched.widths(file)}
        of = [_decision(one, widths) for one in found["of"]]
        rest, original = (schema.number(name, found[name]) for name in ("rest", "original"))
        _check(rest, original)
        if not original or not of:
            raise ValueError("there is nothing to decide")
    except ValueError as error:
        raise ConvkitError(f"its decisions are damaged: {error}", hint="make the file again") from error
    return Decisions(of, rest, original)


def _decision(given: object, widths: set[str]) -> Decision:
    found = schema.fields("a decision", given, _DECISION, tuple(_DECISION))
    known = [{str(bits): schema.number(bits, one) for bits, one in found[name].items()} for name in ("loss", "bops")]
    if any(set(one) != widths for one in known) or not found["layers"]:
        raise ValueError("a decision has other widths than the network")
    _check(*(value for one in known for value in one.values()))
    return Decision([str(layer) for layer in found["layers"]], *known)


def _check(*costs: float) -> None:
    wrong = next((one for one in costs if not 0 <= one <= _MOST), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is no cost")


def chosen(known: Decisions, wish: Budget) -> dict[str, int]:
    """The width of each layer that is decided: those that lose least together within the wish. Raises ConvkitError
    where none keep to it.
    """
    names = [one.layers[0] for one in known.of]
    options = {
        name: {Option(f"int{bits}", f"int{bits}"): Cost(loss=one.loss[bits], bops=one.bops[bits]) for bits in one.loss}
        for name, one in zip(names, known.of, strict=True)
    }
    problem, limit = Problem(options, fixed=Cost(bops=known.rest)), wish.absolute(known.original)
    found = budget.solve(problem, {wish.quantity: limit})
    if found is None or not meets(found.cost[wish.quantity], limit):
        from convkit.compress.budget import nearest

        least = math.fsum([known.rest, *(min(one.bops.values()) for one in known.of)])
        raise VerdictError(
            f"--{wish.name} {wish.text} is less than its widths can do",
            hint=f'give at least "{nearest(wish, least, known.original)}"',
        )
    widths = {name: int(option.weight.removeprefix("int")) for name, option in found.formats.items()}
    return {layer: widths[name] for name, one in zip(names, known.of, strict=True) for layer in one.layers}


def composed(file: onnx.ModelProto, widths: Mapping[str, int]) -> onnx.ModelProto:
    """The network of `file` with these layers at these widths, all others at the widest."""
    widest = switched.widths(file)[0]
    files = {bits: switched.narrowed(file, bits) for bits in sorted({widest, *widths.values()}, reverse=True)}
    made = files.pop(widest)
    graph = _Graph(made)
    for bits, other in files.items():
        if [_form(node) for node in other.graph.node] != [_form(node) for node in made.graph.node]:
            raise ConvkitError(
                f"its networks of {widest} and of {bits} bits are built unlike each other", hint="give --bits"
            )
        places = {place for layer, own in widths.items() if own == bits for place in graph.rounding(layer)}
        _put(made, other, places, bits)
    artifact.drop_unread(made)
    return made


def _form(node: onnx.NodeProto) -> tuple[str, list[str], int]:
    return node.op_type, list(node.output), len(node.input)


def _put(made: onnx.ModelProto, other: onnx.ModelProto, places: Iterable[int], bits: int) -> None:
    """The nodes of `other` at these places into `made`, with constants of their own."""
    constants = {tensor.name: tensor for tensor in other.graph.initializer}
    held = {tensor.name for tensor in made.graph.initializer}
    for place in sorted(places):
        node = made.graph.node[place]
        node.CopyFrom(other.graph.node[place])
        for at, name in enumerate(node.input):
            if name not in constants:
                continue
            node.input[at] = own = f"{name}/{bits}"
            if own not in held:
                held.add(own)
                made.graph.initializer.append(constants[name])
                made.graph.initializer[-1].name = own


class _Graph:
    """A network in which the nodes that round for a layer are found."""

    def __init__(self, file: onnx.ModelProto) -> None:
        self._nodes = list(file.graph.node)
        self._makers = {name: place for place, node in enumerate(self._nodes) for name in node.output}
        self._values = {tensor.name: tensor.SerializeToString() for tensor in file.graph.initializer}
        self._readers: dict[str, list[int]] = {}
        for place, node in enumerate(self._nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(place)

    def rounding(self, layer: str) -> set[int]:
        """Places of nodes that round what `layer` reads, its weight and its bias."""
        node = next((one for one in self._nodes if one.name == layer and len(one.input) > 1), None)
        if node is None:
            raise ConvkitError(f"its decisions are damaged: there is no layer {layer!r}", hint="make the file again")
        return set().union(self._activation(node.input[0]), *(self._constant(name) for name in node.input[1:]))

    def _constant(self, name: str) -> set[int]:
        """What makes `name` of constants alone; nothing where it hangs on an input."""
        found, names = set[int](), [name]
        while names:
            place = self._makers.get(last := names.pop())
            if place is None and last not in self._values:
                return set()
            if place is not None and place not in found:
                found.add(place)
                names += filter(None, self._nodes[place].input)
        return found

    def _activation(self, name: str) -> set[int]:
        """What rounds `name`, all that moves or reads its codes, and pairs before it that are the same one."""
        found: set[int] = set()
        first = self._origin(name)
        while first is not None and first not in found:
            found |= {first, *self._behind(first)}
            before = self._maker(first)
            if before is not None and self._nodes[before].op_type == "Clip":
                found.add(before)
                before = self._maker(before)
            first = None if before is None else self._moved(before, first)
        return found

    def _maker(self, place: int) -> int | None:
        """Who makes what a node reads first."""
        read = self._nodes[place].input
        return self._makers.get(read[0]) if read else None

    def _origin(self, name: str) -> int | None:
        """Who rounded the numbers `name`, through all that only moves their codes."""
        place = self._makers.get(name)
        if place is None or self._nodes[place].op_type != _DEQUANTIZE:
            return None
        place = self._maker(place)
        while place is not None and self._nodes[place].op_type in MOVES:
            place = self._maker(place)
        return place if place is not None and self._nodes[place].op_type == _QUANTIZE else None

    def _behind(self, place: int) -> Iterator[int]:
        """Who reads the codes that a node makes, and those of who moves them."""
        for name in self._nodes[place].output:
            for reader in self._readers.get(name, []):
                kind = self._nodes[reader].op_type
                if kind == _DEQUANTIZE or kind in MOVES:
                    yield reader
                if kind in MOVES:
                    yield from self._behind(reader)

    def _moved(self, place: int, rounded: int) -> int | None:
        """Who rounds what the node at `place` moves, where what it makes is `rounded` alike: they are learnt as one."""
        node = self._nodes[place]
        source = self._makers.get(node.input[0]) if node.op_type in MOVES and node.input else None
        same = source is not None and self._scales(source) == self._scales(rounded)
        return self._origin(node.input[0]) if same else None

    def _scales(self, place: int) -> list[bytes]:
        """Of a node that rounds or is rounded, its constants but for their names."""
        node = self._nodes[place]
        return [_nameless(self._values.get(name, b"")) for name in node.input[1:]] if "Linear" in node.op_type else []


def _nameless(held: bytes) -> bytes:
    from onnx import TensorProto

    tensor = TensorProto.FromString(held)
    tensor.name = ""
    return bytes(tensor.SerializeToString())
