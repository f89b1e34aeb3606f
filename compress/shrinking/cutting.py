"""Channels taken out of a network: every weight, norm and constant that has a number for each, and every size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress.shrinking import sizes as told
from convkit.compress.shrinking.classes import Along
from convkit.compress.shrinking.coupling import Coupling, is_dense

_PARAMETERS = ("weight", "bias", "running_mean", "running_var")


def cut(graph: fx.GraphModule, coupled: Coupling, gone: Collection[int]) -> fx.GraphModule:
    """`graph`, edited in place, without the channels of the classes `gone`; `coupled` is its own.

    Where a layer's parameters are shared by several calls they are cut once. The caller sees to it that every tensor
    keeps a channel; shapes in the nodes' meta are of before.
    """
    out, cutter = torch.tensor(sorted(gone), dtype=torch.int64), _Cutter()
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            _cut_layer(node, coupled, out, cutter)
        elif node.op == "call_function":
            _cut_sizes(graph, node, coupled, out)
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        _cut_constant(graph, node, coupled, out, cutter)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def kept(along: Along | None, gone: Tensor) -> Tensor | None:
    """Places along the axis that stay, int64; None where all do."""
    if along is None:
        return None
    stays = ~torch.isin(along.labels, gone)
    return None if bool(stays.all()) else stays.nonzero().flatten()


def _along(coupled: Coupling, node: object) -> Along | None:
    found = coupled.known.get(node) if isinstance(node, fx.Node) else None
    return found if isinstance(found, Along) else None


class _Cutter:
    """Cuts tensors, one that is shared once: what it becomes is shared again."""

    def __init__(self) -> None:
        self.layers: set[int] = set()
        self._made: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def picked(self, tensor: Tensor, places: Sequence[Tensor | None]) -> Tensor:
        """`tensor` at these places along each of its axes; a parameter where it is one."""
        key = id(tensor), str([None if one is None else one.tolist() for one in places])
        if key not in self._made:
            made = tensor.detach()
            for axis, one in enumerate(places):
                made = made if one is None else made.index_select(axis, one)
            own = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
            self._made[key] = tensor, own  # the first is kept so that nothing else gets its id
        return self._made[key][1]


def _cut_layer(node: fx.Node, coupled: Coupling, gone: Tensor, cutter: _Cutter) -> None:
    layer = graphs.module(node)
    if layer is None or id(layer) in cutter.layers:
        return
    cutter.layers.add(id(layer))
    made, read = kept(_along(coupled, node), gone), kept(coupled.reads.get(node), gone)
    if made is None and read is None:
        return
    if isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001 - torch's only common class
        _cut_conv(layer, made, read, cutter)
    elif isinstance(layer, nn.Linear):
        _set(layer, "weight", cutter, made, read)
        _set(layer, "bias", cutter, made)
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and made is not None:  # noqa: SLF001
        for name in _PARAMETERS:
            _set(layer, name, cutter, made)
        layer.num_features = len(made)


def _cut_conv(layer: nn.modules.conv._ConvNd, made: Tensor | None, read: Tensor | None, cutter: _Cutter) -> None:
    """Groups go whole: what of one is left keeps its inputs."""
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)  # noqa: SLF001 - the same
    first, second = (read, made) if transposed else (made, read)
    _set(layer, "weight", cutter, first, second if layer.groups == 1 else None)
    _set(layer, "bias", cutter, made)
    outputs = layer.out_channels if made is None else len(made)
    if layer.groups > 1:
        layer.groups = layer.groups * outputs // layer.out_channels
    layer.out_channels = outputs
    layer.in_channels = layer.in_channels if read is None else len(read)


def _set(layer: nn.Module, name: str, cutter: _Cutter, *places: Tensor | None) -> None:
    before = getattr(layer, name)
    if before is not None and any(one is not None for one in places):
        setattr(layer, name, cutter.picked(before, places))


def _cut_constant(graph: fx.GraphModule, node: fx.Node, coupled: Coupling, gone: Tensor, cutter: _Cutter) -> None:
    """A constant that has a number for each channel."""
    along, tensor = _along(coupled, node), graphs.constant(node)
    places = kept(along, gone)
    if along is None or tensor is None or places is None:
        return
    wanted = [*[None] * along.axis, places]
    if _is_shared(graph, node):
        made = graphs.store(graph, node, graphs.value(node), cutter.picked(tensor, wanted).detach())
        made.meta.update(value=graphs.value(node), layer=node.meta.get("layer", ""))
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
        return
    path, _, name = str(node.target).rpartition(".")
    _set(graph.get_submodule(path), name, cutter, *wanted)


def _is_shared(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether another node reads the same constant."""
    return any(one.op == "get_attr" and one.target == node.target for one in graph.graph.nodes if one is not node)


def _cut_sizes(graph: fx.GraphModule, node: fx.Node, coupled: Coupling, gone: Tensor) -> None:
    """Numbers of channels, and places among them, that an operator is told."""
    operator = graphs.operator(node)
    if operator == "Split":
        _cut_split(graph, node, coupled, gone)
    elif operator in ("Slice", "Gather"):
        _cut_places(graph, node, coupled, gone)
    elif operator == "GroupNormalization":
        along, groups = _along(coupled, node), node.kwargs.get("num_groups")
        places = kept(along, gone)
        if along is not None and places is not None and isinstance(groups, int):
            node.kwargs = {**node.kwargs, "num_groups": groups * len(places) // len(along.labels)}
    else:
        along = _along(coupled, node)
        places, index = kept(along, gone), told.sized_by(node)
        if along is not None and places is not None and index is not None:
            _write_size(graph, node, index, along.axis, len(places))


def _write_size(graph: fx.GraphModule, node: fx.Node, index: int, place: int, size: int) -> None:
    """Where argument `index`, a vector of sizes, names the one at `place`, neither copied (0) nor inferred (-1), it is
    `size` for this operator alone, also within a Concat of sizes.
    """
    argument = node.args[index]
    assert isinstance(argument, fx.Node)  # `literal` found it  # noqa: S101
    numbers = graphs.constant(argument)
    if numbers is None:
        with graph.graph.inserting_before(node):
            own = graph.graph.node_copy(argument, lambda one: one)
        own.meta.update(value=f"{graphs.value(argument)}_{node.name}")
        node.update_arg(index, own)
        inner, left = told.piece(own, place)
        _write_size(graph, own, inner, left, size)
        return
    flat = numbers.clone().reshape(-1)
    if int(flat[place]) > 0:
        flat[place] = size
        node.update_arg(
            index, graphs.store(graph, node, f"{graphs.value(argument)}_{node.name}", flat.reshape(numbers.shape))
        )


def _cut_split(graph: fx.GraphModule, node: fx.Node, coupled: Coupling, gone: Tensor) -> None:
    axis = _axis(node)
    read = _along(coupled, node.args[0])
    shape = graphs.shape(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    if read is None or shape is None or axis % len(shape) != read.axis or kept(read, gone) is None:
        return
    told = graphs.constant(node.args[1]) if len(node.args) > 1 else None
    stays = node.target(~torch.isin(read.labels, gone), told, **{**node.kwargs, "axis": 0})  # type: ignore[operator]
    sizes = torch.tensor([int(part.sum()) for part in stays], dtype=torch.int64)
    made = graphs.store(graph, node, f"{graphs.value(node)}_sizes", sizes)
    node.args = (node.args[0], made)
    node.kwargs = {"axis": axis}


def _cut_places(graph: fx.GraphModule, node: fx.Node, coupled: Coupling, gone: Tensor) -> None:
    """A Slice or Gather of channels takes those that are left of its own."""
    source = node.args[0]
    read = _along(coupled, source)
    places = kept(read, gone)
    if read is None or places is None or not isinstance(source, fx.Node):
        return
    if graphs.operator(node) == "Gather":
        shape = graphs.shape(source) or ()
        if _axis(node) % len(shape) == read.axis:
            made = _along(coupled, node)
            out = None if made is None else (kept(made, gone), made.axis - read.axis)
            _cut_gather(graph, node, (places, len(read.labels)), out)
    else:
        _cut_slice(graph, node, read, places)


def _axis(node: fx.Node) -> int:
    """The operator's attribute."""
    axis = node.kwargs.get("axis", 0)
    assert isinstance(axis, int)  # noqa: S101 - ONNX has no other
    return axis


def _cut_gather(
    graph: fx.GraphModule, node: fx.Node, source: tuple[Tensor, int], out: tuple[Tensor | None, int] | None
) -> None:
    """Indices of the places `source` that stay of so many; `out`: which indices stay, along which of their axes."""
    places, count = source
    index = node.args[1]
    numbers = graphs.constant(index)
    assert numbers is not None  # what is computed is held  # noqa: S101
    new = torch.full((count,), -1, dtype=torch.int64)
    new[places] = torch.arange(len(places))
    taken = new[numbers.long() % count]
    if out is not None and out[0] is not None:
        taken = taken.index_select(out[1], out[0])
    node.update_arg(1, graphs.store(graph, node, f"{graphs.value(node)}_indices", taken))


def _cut_slice(graph: fx.GraphModule, node: fx.Node, read: Along, places: Tensor) -> None:
    arguments: list[Any] = [None if one is None else graphs.constant(one) for one in node.args[1:]]
    starts, ends, axes = arguments[0].clone(), arguments[1].clone(), arguments[2] if len(arguments) > 2 else None  # noqa: PLR2004
    rank, count = len(graphs.shape(node) or ()), len(read.labels)
    listed = axes.tolist() if axes is not None else list(range(len(starts)))
    for at, axis in enumerate(listed):
        if int(axis) % rank != read.axis:
            continue
        first, last, _ = slice(int(starts[at]), int(ends[at])).indices(count)
        starts[at], ends[at] = int((places < first).sum()), int((places < max(first, last)).sum())
    for index, tensor in ((1, starts), (2, ends)):
        made = graphs.store(graph, node, f"{graphs.value(node)}_{'se'[index - 1]}", tensor)
        node.update_arg(index, made)


def masked(graph: fx.GraphModule, coupled: Coupling, gone: Collection[int]) -> fx.GraphModule:
    """`graph`, edited in place, with weights of zero for the channels of the classes `gone`, where layers only read
    them: it computes what the network without them does, unless something is reduced over channels.
    """
    out = torch.tensor(sorted(gone), dtype=torch.int64)
    for node, along in coupled.reads.items():
        layer = graph.get_submodule(str(node.target)) if is_dense(node) else None
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):  # noqa: SLF001 - torch's only common class
            axis = 0 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 1  # noqa: SLF001
            with torch.no_grad():
                layer.weight.index_fill_(axis, torch.isin(along.labels, out).nonzero().flatten(), 0.0)
    return graph
