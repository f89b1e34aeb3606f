"""Where an operator's result has its channels, given where its inputs have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.shrinking import sizes
from convkit.compress.shrinking.classes import NOTHING, Along, Classes

Found = Along | tuple[Along | None, ...] | None


class Known(dict[fx.Node, Found]):
    """Where tensors have their channels; nowhere in what is not named.

    `outside`: what was read where no channels are known, so that it must stay as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outside: set[fx.Node] = set()

    def of(self, argument: object) -> Along | None:
        """Of an argument that is one tensor."""
        found = self.get(argument) if isinstance(argument, fx.Node) else None
        return None if isinstance(found, tuple) else found


Rule = Callable[[fx.Node, Known, Classes], Found | str]
"""Where the result has its channels, or why those that are read must stay."""


def made(node: fx.Node, known: Known, classes: Classes) -> Found:
    """The channels of what `node`, an operator, makes. What is not understood holds those that it reads."""
    if all(known.of(argument) is None for argument in node.all_input_nodes):
        if any(graphs.constant(argument) is None for argument in node.all_input_nodes):
            known.outside |= set(node.all_input_nodes)
        return None
    rule = _RULES.get(graphs.operator(node))
    found = f"{_said(node)} reads it" if rule is None else rule(node, known, classes)
    if isinstance(found, str):
        for argument in node.all_input_nodes:
            along = known.of(argument)
            if along is not None:
                classes.hold(along.labels, found)
        return None
    if isinstance(found, tuple):
        return tuple(_several(one, node, classes) for one in found)
    return _several(found, node, classes)


def _several(found: Along | None, node: fx.Node, classes: Classes) -> Along | None:
    """A tensor of one channel only keeps it."""
    if found is None or len(torch.unique(found.labels)) > 1:
        return found
    classes.hold(found.labels, f"it is the only channel of {graphs.value(node)}")
    return None


def _said(node: fx.Node) -> str:
    return f"{graphs.value(node)}, {graphs.operator(node)},"


def _tensors(node: fx.Node) -> Iterator[tuple[fx.Node, tuple[int, ...]]]:
    """Inputs that are tensors with dimensions, and their shapes."""
    for argument in node.args:
        if isinstance(argument, fx.Node):
            yield argument, _shape(argument)


def _shape(node: fx.Node) -> tuple[int, ...]:
    constant = graphs.constant(node)
    return tuple(constant.shape) if constant is not None else graphs.shape(node) or ()


def _elementwise(node: fx.Node, known: Known, classes: Classes) -> Found | str:
    """Channels that meet are one; a constant that has a number for each is cut with them."""
    out = _shape(node)
    found: Along | None = None
    for argument, shape in _tensors(node):
        along = known.of(argument)
        if along is None or (shape[along.axis] == 1 < out[along.axis + len(out) - len(shape)]):
            continue
        here = Along(along.axis + len(out) - len(shape), along.labels)
        if found is None:
            found = here
        elif found.axis == here.axis:
            classes.unite(found.labels, here.labels)
        else:
            return f"it meets others along another axis in {graphs.value(node)}"
    if found is not None:
        for argument, shape in _tensors(node):
            axis = found.axis - len(out) + len(shape)
            if known.of(argument) is None and axis >= 0 and shape[axis] > 1:
                _beside(argument, axis, found, known, classes)
    return found


def _beside(argument: fx.Node, axis: int, found: Along, known: Known, classes: Classes) -> None:
    """What meets the channels `found` along its `axis` and has none that are known: a constant gets them."""
    source = argument
    if graphs.operator(argument) == "Unsqueeze" and isinstance(argument.args[0], fx.Node):
        added = graphs.constant(argument.args[1])
        if added is not None:  # the slope of a PRelu, [C], as [C, 1, 1]
            rank = len(_shape(argument))
            source, axis = argument.args[0], axis - sum(int(one) % rank < axis for one in added.flatten().tolist())
    if graphs.constant(source) is None or source in known.outside:
        classes.hold(found.labels, f"it meets {graphs.value(argument)}, whose channels are not known")
        return
    before = known.of(source)
    if before is None:
        known[source] = Along(axis, found.labels)
    elif before.axis == axis:
        classes.unite(before.labels, found.labels)
    else:
        classes.hold(found.labels, f"it meets {graphs.value(argument)} along two axes")


def _by_channel(node: fx.Node, known: Known, classes: Classes) -> Found | str:
    """Norms: constants [channels] behind the data, whose channels are on axis 1. Groups of them go whole."""
    along = known.of(node.args[0])
    if along is None or along.axis != 1:
        return f"{_said(node)} reads it along another axis"
    for argument in node.args[1:]:
        if not isinstance(argument, fx.Node):
            continue
        if graphs.constant(argument) is None:
            return f"{_said(node)} computes its parameters"
        _beside(argument, 0, along, known, classes)
    groups = node.kwargs.get("num_groups")
    for group in along.labels.chunk(groups) if isinstance(groups, int) else ():
        classes.unite_all(group)
    return along


def _kept(node: fx.Node, known: Known, classes: Classes) -> Found | str:  # noqa: ARG001 - a rule
    """Pools and other work on positions: channels stay where they are."""
    along = known.of(node.args[0])
    if along is not None and _shape(node)[along.axis] == len(along.labels) and sizes.writable(node, along):
        return along
    return f"{_said(node)} changes their number"


def _reduced(node: fx.Node, known: Known, classes: Classes) -> Found | str:  # noqa: ARG001 - a rule
    along = known.of(node.args[0])
    given = node.args[1] if len(node.args) > 1 else None
    listed = graphs.constant(given)
    if along is None or (given is not None and listed is None):
        return f"{_said(node)} computes its axes"
    source = node.args[0]
    rank = len(_shape(source)) if isinstance(source, fx.Node) else 0
    axes = sorted({int(a) % rank for a in listed.flatten().tolist()} if listed is not None else range(rank))
    if not axes and node.kwargs.get("noop_with_empty_axes"):
        return along
    if not axes or along.axis in axes:
        return f"{_said(node)} takes all of them together"
    gone = 0 if node.kwargs.get("keepdims", 1) else sum(axis < along.axis for axis in axes)
    return Along(along.axis - gone, along.labels)


def _moved(node: fx.Node, known: Known, classes: Classes) -> Found | str:
    """What names, orders or lays out elements is run on the numbers of channels."""
    told = graphs.operator(node) in sizes.TOLD
    if graphs.operator(node) != "Concat" and any(known.of(one) is not None for one in node.args[1:]):
        return f"{_said(node)} goes where it says"
    arguments = [_numbers(argument, known) for argument in (node.args[:1] if told else node.args)]
    if any(argument is _UNKNOWN for argument in arguments):
        return f"{_said(node)} computes where it goes"
    result = _run(node, arguments)
    if isinstance(result, tuple):
        return tuple(_placed(one, node, classes) for one in result)
    found = _placed(result, node, classes)
    if found is not None and _beside_others(node, found, known):
        return f"{_said(node)} joins them to what has none of them"
    if found is not None and (not sizes.writable(node, found) or _skips(node, found)):
        return f"{_said(node)} computes its sizes, or skips some"
    return found


def _beside_others(node: fx.Node, found: Along, known: Known) -> bool:
    """Whether a Concat along another axis joins channels to a tensor without any, such as a token, which would keep its
    size."""
    if graphs.operator(node) != "Concat":
        return False
    axis = int(node.kwargs["axis"]) % len(_shape(node))  # type: ignore[arg-type]  # an operator's attribute
    return axis != found.axis and any(known.of(one) is None for one in node.args)


_UNKNOWN = object()


def _numbers(argument: object, known: Known) -> Any:  # noqa: ANN401 - fx arguments are anything
    """The numbers of an input's channels at all its places, or the constant that it is."""
    if not isinstance(argument, fx.Node):
        return argument
    along, shape = known.of(argument), _shape(argument)
    if along is not None:
        view = [-1 if axis == along.axis else 1 for axis in range(len(shape))]
        return along.labels.reshape(view).expand(shape)
    constant = graphs.constant(argument)
    if constant is not None:
        return constant if not constant.is_floating_point() else torch.full(shape, NOTHING)
    return torch.full(shape, NOTHING) if graphs.is_float(argument) else _UNKNOWN


def _run(node: fx.Node, arguments: list[Any]) -> Tensor | tuple[Tensor, ...]:
    if graphs.operator(node) in sizes.TOLD:
        arguments = [*arguments, torch.tensor(_shape(node))]
    if graphs.operator(node) == "Pad":
        arguments = [*arguments[:2], None, *arguments[3:]]
    result: Tensor | tuple[Tensor, ...] = node.target(*arguments, **node.kwargs)  # type: ignore[operator]  # an operator
    return result


def _placed(numbers: Tensor, node: fx.Node, classes: Classes) -> Along | None:
    """The one axis along which `numbers` of channels are; what differs along others as well is made one there."""
    spread = [(axis, *_ends(numbers, axis)) for axis in range(numbers.ndim) if numbers.shape[axis] > 1]
    distinct = torch.unique(numbers[numbers != NOTHING])
    if len(distinct) <= 1 or not spread:
        classes.hold(distinct, f"it is the only channel of {graphs.value(node)}")
        return None
    exact = [(axis, high) for axis, low, high in spread if torch.equal(low, high)]
    axis, labels = max(exact or [(a, high) for a, _, high in spread], key=lambda one: len(torch.unique(one[1])))
    if not exact:
        wide = labels.reshape([-1 if a == axis else 1 for a in range(numbers.ndim)]).expand_as(numbers)
        chosen = numbers != NOTHING
        classes.unite(wide[chosen], numbers[chosen])
    none = labels == NOTHING
    if bool(none.any()):
        filled = classes.held(int(none.sum()), f"{_said(node)} puts others beside it")
        labels = labels.masked_scatter(none, filled)
    return Along(axis, labels)


def _ends(numbers: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The least and the largest number in each slice along `axis`; NOTHING in both where there is none."""
    flat = numbers.movedim(axis, 0).flatten(1)
    high = flat.amax(1)
    low = torch.where(flat == NOTHING, torch.iinfo(flat.dtype).max, flat).amin(1)
    return torch.where(high == NOTHING, NOTHING, low), high


def _skips(node: fx.Node, found: Along) -> bool:
    """Whether a Slice takes every other channel, or turns them round."""
    if graphs.operator(node) != "Slice" or len(node.args) < len(("x", "starts", "ends", "axes", "steps")):
        return False
    axes, steps = graphs.constant(node.args[3]), graphs.constant(node.args[4])
    if axes is None or steps is None:
        return steps is not None
    rank, pairs = len(_shape(node)), zip(axes.tolist(), steps.tolist(), strict=True)
    return any(int(axis) % rank == found.axis and int(step) != 1 for axis, step in pairs)


_ELEMENTWISE = """Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Shrink Sigmoid HardSigmoid HardSwish Tanh Softplus
Softsign Gelu Mish Swish Clip Softmax LogSoftmax Add Sub Mul Div Mod Pow Neg Abs Sqrt Reciprocal Exp Log Floor Ceil
Round Sign Erf Sum Mean Max Min Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Cast CastLike Equal Greater
GreaterOrEqual Less LessOrEqual And Or Xor Not Where IsNaN IsInf Identity LayerNormalization RMSNormalization"""
_KEPT = "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool Resize CumSum"
_REDUCED = """ReduceSum ReduceMean ReduceProd ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum
ReduceLogSumExp"""
_MOVED = """Slice Gather Pad Reshape Flatten Transpose Squeeze Unsqueeze Expand Tile Concat Split DepthToSpace
SpaceToDepth"""
_BY_CHANNEL = "BatchNormalization InstanceNormalization GroupNormalization"


def _nothing(node: fx.Node, known: Known, classes: Classes) -> Found:  # noqa: ARG001 - a rule
    """Sizes follow what there is."""
    return None


_RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        (_ELEMENTWISE, _elementwise),
        (_KEPT, _kept),
        (_REDUCED, _reduced),
        (_MOVED, _moved),
        (_BY_CHANNEL, _by_channel),
        ("Shape Size", _nothing),
    )
    for name in names.split()
}
