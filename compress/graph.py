"""Questions asked of a Model's graph, and the two edits every method is made of."""

from __future__ import annotations

import operator as py_operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable

_LAYERS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.conv._ConvTransposeNd, "ConvTranspose"),  # noqa: SLF001 - torch's only common class of 1-D to 3-D
    (nn.modules.conv._ConvNd, "Conv"),  # noqa: SLF001 - the same
    (nn.Linear, "Gemm"),
    (nn.modules.batchnorm._BatchNorm, "BatchNormalization"),  # noqa: SLF001 - the same
)

_MATRIX = 2
"""Rank on which a Linear is a Gemm."""


def module(node: fx.Node) -> nn.Module | None:
    """The layer that a call_module node calls."""
    if node.op != "call_module":
        return None
    owner = node.graph.owning_module
    assert owner is not None  # a Model's graph always has its GraphModule  # noqa: S101
    return owner.get_submodule(str(node.target))


def weight_id(node: fx.Node) -> int:
    """The same for layers that share their weight, and for no others."""
    weight = getattr(module(node), "weight", None)
    return id(node if weight is None else weight)


def operator(node: fx.Node) -> str:
    """ONNX operator that `node` computes; "" for inputs, constants, the output and getitem.

    A Linear on anything but rank 2 is a MatMul, as it is in every file convkit writes.
    """
    layer = module(node)
    if layer is not None:
        found = next((name for kind, name in _LAYERS if isinstance(layer, kind)), type(layer).__name__)
        return "MatMul" if found == "Gemm" and len(shape(node) or (0, 0)) != _MATRIX else found
    if node.op == "call_function" and node.target is not py_operator.getitem:
        return str(getattr(node.target, "__name__", node.target))
    return ""


def key(node: fx.Node) -> str:
    """What a plan calls a node: its layer name, or for a function the name of the tensor it makes."""
    return str(node.target) if node.op == "call_module" else value(node)


def value(node: fx.Node) -> str:
    """Name of the tensor that `node` makes."""
    return str(node.meta.get("value", node.name))


def shape(node: fx.Node) -> tuple[int, ...] | None:
    """Sample shape of the tensor `node` makes, once `with_shapes` has run."""
    spec = node.meta.get("tensor")
    return None if spec is None else tuple(spec.shape)


def is_float(node: fx.Node) -> bool:
    """Whether `node` makes a float32 tensor."""
    spec = node.meta.get("tensor")
    return spec is not None and spec.dtype == "float32"


def constant(node: Any) -> torch.Tensor | None:  # noqa: ANN401 - fx arguments are anything
    """The tensor behind a get_attr node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found if isinstance(found, torch.Tensor) else None


def sole_user(node: fx.Node) -> fx.Node | None:
    """The only node that reads `node`, if there is just one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def computes(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Layers and operators in execution order."""
    return (node for node in graph.graph.nodes if operator(node))


def bypass(node: fx.Node, source: fx.Node) -> None:
    """Take `node` out: its readers read `source`, which takes over its tensor's name where only `node` read it."""
    if source.op not in ("placeholder", "get_attr") and sole_user(source) is node:
        source.meta["value"] = value(node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def behind_inputs(graph: fx.GraphModule) -> fx.Node:
    """The last input of `graph`: what is inserted behind it comes before everything that computes."""
    inputs: list[fx.Node] = [node for node in graph.graph.nodes if node.op == "placeholder"]
    return inputs[-1]


def call(
    after: fx.Node,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    name: str,
    layer: str = "",
    **attributes: Any,  # noqa: ANN401
) -> fx.Node:
    """A new operator node right behind `after`, making the tensor `name`."""
    with after.graph.inserting_after(after):
        node = after.graph.call_function(function, args, attributes)
    node.meta.update(value=name, layer=layer)
    return node


def store(graph: fx.GraphModule, before: fx.Node, name: str, tensor: torch.Tensor) -> fx.Node:
    """A get_attr node for `tensor`, kept as buffer under a name made from `name`."""
    attribute = "_" + "".join(c if c.isalnum() else "_" for c in name)
    while hasattr(graph, attribute):
        attribute += "_"
    graph.register_buffer(attribute, tensor)
    with before.graph.inserting_before(before):
        node = before.graph.get_attr(attribute)
    node.meta.update(value=name, layer="")
    return node
