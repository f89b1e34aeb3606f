"""The table of aten operators: one small function each that writes an aten node in the ONNX vocabulary.

A function takes the Builder and the operator's arguments in the order of its schema (defaults filled in) and
returns the result, or a tuple of results. The files `_aten_*.py` with a `TABLE` are the table; a key is the
operator's name (`add`), or that of one overload (`max.dim`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress.sources._aten_graph import Builder, Constant, Operand

Result = Operand | tuple[Operand, ...]
Translate = Callable[..., Result]
Environment = dict[fx.Node, Any]


@functools.cache
def table() -> dict[str, Translate]:
    """Every aten operator that has an ONNX form."""
    found: dict[str, Translate] = {}
    for path in sorted(Path(__file__).parent.glob("_aten_*.py")):
        found |= getattr(importlib.import_module(f"{__package__}.{path.stem}"), "TABLE", {})
    return found


def find(target: object) -> Translate | None:
    """The function that translates an aten operator; in-place forms are read as the plain ones."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":  # noqa: SLF001 - no public name
        return None
    name, overload = target._opname, target._overloadname  # noqa: SLF001 - no public name
    if is_in_place(target):
        name = name.removesuffix("_")
    return table().get(f"{name}.{overload}") or table().get(name)


def is_in_place(target: torch._ops.OpOverload) -> bool:
    """Whether the operator writes into its first argument."""
    first = target._schema.arguments[:1]  # noqa: SLF001 - no public name
    return bool(first and first[0].alias_info is not None and first[0].alias_info.is_write)


def translate(builder: Builder, node: fx.Node, environment: Environment) -> Result:
    """The result of an aten node whose operator `find` knows; what no input reaches is computed at once."""
    arguments = bind(node, environment)
    operands = [x for x in flatten(arguments) if isinstance(x, fx.Node | Constant)]
    builder.operands = [x for x in operands if isinstance(x, fx.Node)]
    if not builder.operands and _is_static(node):
        return _fold(builder, node, environment)
    if any(isinstance(x, torch.SymFloat | torch.SymBool) for x in flatten(arguments)):
        raise builder.refuse("a number computed from a free size by more than whole numbers")
    function = find(node.target)
    if function is None:
        raise LookupError(str(node.target))
    return function(builder, *arguments)


def bind(node: fx.Node, environment: Environment) -> list[Any]:
    """A node's arguments by its schema, defaults filled in, tensors looked up, sizes as int or SymInt."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001 - only operators come here
    given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    return [_look_up(given.get(a.name, a.default_value), environment) for a in schema.arguments]


def _look_up(argument: object, environment: Environment) -> Any:  # noqa: ANN401 - any type a schema has
    if isinstance(argument, fx.Node):
        return environment[argument]
    if isinstance(argument, list | tuple):
        return [_look_up(x, environment) for x in argument]
    return argument


def flatten(arguments: object) -> Iterator[object]:
    """The leaves of nested lists."""
    if isinstance(arguments, list | tuple):
        for x in arguments:
            yield from flatten(x)
    else:
        yield arguments


def _is_static(node: fx.Node) -> bool:
    """Same sizes and same contents at every run."""
    values = [v for v in flatten(node.meta.get("val")) if isinstance(v, Tensor)]
    random = torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]
    return not random and all(isinstance(dim, int) for v in values for dim in v.shape)


def _fold(builder: Builder, node: fx.Node, environment: Environment) -> Result:
    """Run the operator now. What comes from a parameter stays trainable, as a parameter of its own."""
    sources: list[Tensor] = []

    def real(argument: object) -> object:
        if isinstance(argument, fx.Node):
            found = environment[argument]
            if not isinstance(found, Constant):
                return found
            sources.append(found.tensor)
            return found.tensor.detach().clone()
        return [real(x) for x in argument] if isinstance(argument, list | tuple) else argument

    arguments = [real(x) for x in node.args]
    options = {key: real(x) for key, x in node.kwargs.items()}
    with torch.no_grad():
        result = node.target(*arguments, **options)  # type: ignore[operator]
    trainable = any(isinstance(t, nn.Parameter) for t in sources)
    made = tuple(_derived(builder, t, trainable) for t in flatten(list(result) if _several(result) else result))
    return made if _several(result) else made[0]


def _several(result: object) -> bool:
    return isinstance(result, list | tuple)


def _derived(builder: Builder, result: object, trainable: bool) -> Constant:
    tensor = result if isinstance(result, Tensor) else torch.tensor(result)
    if trainable and tensor.is_floating_point():
        tensor = nn.Parameter(tensor.contiguous())
    return Constant(builder.label, tensor, derived=True)
