"""Writes the Model's FX graph: names, layers, constants and sizes, on behalf of one aten node at a time."""

from __future__ import annotations

import operator as python
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import ops
from convkit.compress.errors import ConvkitError
from convkit.compress.ops.cast import DTYPES
from convkit.compress.sources import _aten_size

Size = int | torch.SymInt
Number = float | torch.SymInt


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that no input reaches: a parameter or buffer of the source, or what is `derived` from them alone."""

    name: str
    tensor: Tensor
    derived: bool = False


Operand = fx.Node | Constant


def shape(x: Operand) -> tuple[Size, ...]:
    """Sizes of a tensor, SymInt where they are free."""
    return tuple(value(x).shape)


def value(x: Operand) -> Tensor:
    """A tensor of the type and sizes of `x`; its contents mean something for a Constant only."""
    found: Tensor = x.tensor if isinstance(x, Constant) else x.meta["val"]
    return found


def per_axis(given: int | Sequence[int], rank: int) -> list[int]:
    """Strides, pads and the like for every spatial axis; torch takes one number for all."""
    found = [given] if isinstance(given, int) else list(given)
    return found * rank if len(found) == 1 else found


class Builder:
    """The graph so far, and the aten node in hand (`val` is its result, `layer` and `label` where it stands)."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph(owning_module=self.root)  # type: ignore[arg-type]  # torch takes any module
        self.inputs: list[fx.Node] = []
        self.val: Any = None
        self.layer = ""
        self.label = ""
        self.tags: tuple[str, ...] = ()
        self.operands: list[fx.Node] = []
        self._fresh: list[fx.Node] = []
        self._taken: set[str] = set()
        self._attributes: dict[int, fx.Node] = {}
        self._constants = 0

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` … where it is taken."""
        found, count = name, 0
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def begin(self, source: fx.Node, layer: str, label: str, tags: tuple[str, ...] = ()) -> None:
        """Take the aten node `source` in hand; `tags`: the novel convolutions that it is part of, outermost first."""
        self.val, self.layer, self.label, self.tags = source.meta.get("val"), layer, label, tags
        self.operands, self._fresh = [], []

    def finish(self, result: Operand | tuple[Operand, ...]) -> None:
        """Name what was made for the aten node in hand: its results after its label, steps on the way by operator."""
        results = result if isinstance(result, tuple) else (result,)
        values = self.val if isinstance(self.val, tuple | list) else (self.val,)
        for node, made in zip(results, values, strict=False):
            if isinstance(node, fx.Node):
                node.meta.setdefault("val", made)
        for node in (*results, *self._fresh):
            if isinstance(node, fx.Node) and "value" not in node.meta and node.op != "placeholder":
                step = node.target.__name__ if callable(node.target) and node not in results else ""
                node.meta["value"] = self.unique(f"{self.label}.{step}" if step else self.label)

    def input(self, name: str, val: Tensor) -> fx.Node:
        """A graph input called `name`."""
        node = self.graph.placeholder(name)
        node.meta |= {"val": val, "value": self.unique(name), "layer": ""}
        self.inputs.append(node)
        return node

    def op(self, operator: str, *inputs: Operand | None, **attributes: Any) -> fx.Node:  # noqa: ANN401 - ONNX's attributes
        """A node of the ONNX operator `operator`; None stands for an optional input that is absent."""
        args = [None if x is None else self.node(x) for x in inputs]
        while args and args[-1] is None:
            args.pop()
        return self._made(self.graph.call_function(ops.function(operator), tuple(args), attributes))

    def pick(self, outputs: fx.Node, index: int) -> fx.Node:
        """One output of an operator that has several."""
        return self._made(self.graph.call_function(python.getitem, (outputs, index)))

    def _made(self, node: fx.Node) -> fx.Node:
        node.meta["layer"] = self.layer
        if self.tags:
            node.meta |= {"op": self.tags[0], "tags": self.tags}
        self._fresh.append(node)
        return node

    def call(self, path: str, module: nn.Module, x: Operand) -> fx.Node:
        """A call of the layer `module`, which stands at `path`. Each call is a layer of its own, `path_1` the second,
        that holds the same parameters: what lies around it may want another format of it than what lies around others.
        """
        target = self._place(path or self.label, module)
        node = self._made(self.graph.call_module(target, (self.node(x),)))
        node.meta |= {"layer": target, "value": self.unique(target)}
        return node

    def _place(self, path: str, module: nn.Module) -> str:
        count, target = 0, path
        while hasattr(_owner(self.root, target), target.rpartition(".")[2]):
            if _adopt(self.root, target, module):
                break
            count += 1
            target = f"{path}_{count}"
        setattr(_owner(self.root, target), target.rpartition(".")[2], module)
        return target

    def node(self, x: Operand) -> fx.Node:
        """The node that stands for `x`; a Constant becomes a get_attr node where it is first asked for."""
        if isinstance(x, fx.Node):
            return x
        key = id(x.tensor)
        if key not in self._attributes:
            self._attributes[key] = self._attribute(x)
        return self._attributes[key]

    def _attribute(self, constant: Constant) -> fx.Node:
        target = self.unique(constant.name)
        while hasattr(_owner(self.root, target), target.rpartition(".")[2]):  # such as a method of nn.Module
            target = self.unique(constant.name)
        owner, _, leaf = target.rpartition(".")
        module = _owner(self.root, target)
        if isinstance(constant.tensor, nn.Parameter):
            module.register_parameter(leaf, constant.tensor)
        else:
            module.register_buffer(leaf, constant.tensor)
        node = self.graph.get_attr(target)
        node.meta |= {"val": constant.tensor, "value": target, "layer": owner}
        return node

    def constant(self, data: object, dtype: torch.dtype) -> Constant:
        """A constant of convkit's own, such as a scalar (rank 0) or a list of axes (rank 1)."""
        if any(isinstance(x, torch.SymInt) for x in (data if isinstance(data, list) else [data])):
            raise self.refuse("a free size where a number must stand")
        self._constants += 1
        return Constant(f"constant_{self._constants}", torch.tensor(data, dtype=dtype), derived=True)

    def integers(self, *values: int) -> Constant:
        """A 1-D int64 constant."""
        return self.constant(list(values), torch.int64)

    def cast(self, x: Operand | Number, dtype: torch.dtype) -> Operand:
        """`x` in the type `dtype`; a number becomes a scalar."""
        if isinstance(x, torch.SymInt):
            return self.op("Cast", self.op("Squeeze", self.size(x)), to=_ONNX_TYPES[dtype])
        if not isinstance(x, fx.Node | Constant):
            return self.constant(x, dtype)
        if isinstance(x, fx.Node) and "val" not in x.meta:  # a step on the way has the type already
            return x
        if value(x).dtype == dtype:
            return x
        made = self.op("Cast", x, to=_ONNX_TYPES[dtype])
        made.meta["val"] = value(x).to(dtype)
        return made

    def size(self, dim: Size) -> Operand:
        """One size as a 1-D int64 tensor, read from the nearest tensor that has it."""
        if isinstance(dim, int):
            return self.integers(dim)
        return _aten_size.write(self, dim.node.expr)

    def sizes(self, dims: Sequence[Size]) -> Operand:
        """Sizes as one 1-D int64 tensor."""
        if all(isinstance(dim, int) for dim in dims):
            return self.integers(*(int(dim) for dim in dims))
        parts: list[Operand] = [self.size(dim) for dim in dims]
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def fixed(self, size: Size) -> int:
        """A size that must not be free."""
        if isinstance(size, torch.SymInt):
            raise self.refuse("a free size where a number must stand")
        return size

    def refuse(self, what: str) -> ConvkitError:
        """The error that says what cannot be translated, and in which layer."""
        hint = "give the size as a number in --shape" if _FREE.search(what) else ""
        return ConvkitError(f"{what} in layer {self.layer or '(top)'!r} has no ONNX form", hint=hint)


_FREE = re.compile(r"\bsize\b|\bs\d+\b")
"""In words about what hangs on a size; torch calls free ones s77."""
_ONNX_TYPES = {dtype: code for code, dtype in DTYPES.items()}


def _owner(root: nn.Module, path: str) -> nn.Module:
    """The module that holds what stands at `path`; containers on the way are made."""
    module = root
    for part in path.split(".")[:-1]:
        child = getattr(module, part, None)
        if child is None:
            child = nn.Module()
            module.add_module(part, child)
        module = child
    return module


def _adopt(root: nn.Module, path: str, module: nn.Module) -> bool:
    """Let `module` take over what a bare container at `path` holds; False where something else stands there."""
    held = getattr(_owner(root, path), path.rpartition(".")[2])
    if type(held) is not nn.Module:
        return False
    for name, child in held.named_children():
        module.add_module(name, child)
    for name, parameter in held.named_parameters(recurse=False):
        module.register_parameter(name, parameter)
    for name, buffer in held.named_buffers(recurse=False):
        module.register_buffer(name, buffer)
    return True
