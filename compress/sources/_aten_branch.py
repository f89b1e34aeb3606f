"""Networks that decide by a free size: one graph holds the way that the sample took, and another size takes another.

torch.export notes what a decision was found to be, as a bound of the size or as an assertion, and so it notes what the
network cannot run on and much that changes nothing. Which of these it is, running shows: the network and its program
on sizes that break what was noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from convkit.compress.sources import _aten_place

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_ASSERTIONS = frozenset({"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "_assert_async"})
_LEAST, _LARGEST, _TRIED = 2, 4096, 12
"""Sizes that are tried, and how many; of 1, every program is told by torch to be another case."""
_CLOSE = 1e-3
"""Of the largest output: the same network, in another order of sums."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is true of a size by its symbol where the program holds, and a size for which the network does otherwise."""

    symbol: str
    condition: str
    size: int


def first(module: nn.Module, program: ExportedProgram, samples: Mapping[str, Tensor]) -> Decision | None:
    """The first size that the network `module` runs on otherwise than `program`, of those near the `samples`."""
    own = dict(_symbols(program, samples))
    tried: set[tuple[str, int]] = set()
    for symbol, condition, size in _broken(program, own):
        if (symbol, size) in tried or len(tried) == _TRIED:
            continue
        tried.add((symbol, size))
        given = _at(program, samples, symbol, size)
        if given is not None and _differs(module, program, given):
            return Decision(symbol, condition, size)
    return None


def _symbols(program: ExportedProgram, samples: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Free sizes by their symbols, as the samples have them."""
    for tensor, sample in zip(_placeholders(program), samples.values(), strict=True):
        for dim, size in zip(tensor.shape, sample.shape, strict=True):
            if isinstance(dim, torch.SymInt) and dim.node.expr.is_Symbol:
                yield str(dim.node.expr), size


def _placeholders(program: ExportedProgram) -> list[Tensor]:
    held = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return [held[str(name)].meta["val"] for name in program.graph_signature.user_inputs]


def _broken(program: ExportedProgram, own: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """(symbol, what was noted of it, a size that breaks this)."""
    for symbol, bounds in program.range_constraints.items():
        name = str(symbol)
        if name not in own:
            continue
        low, high = (int(end) if end.is_Integer else None for end in (bounds.lower, bounds.upper))
        said = f"{name if low is None or low <= _LEAST else f'{low} <= {name}'}{'' if high is None else f' <= {high}'}"
        if high is not None and high < _LARGEST:
            yield name, said, high + 1
        if low is not None and low > _LEAST:
            yield name, said, low - 1
    for node in program.graph.nodes:
        if node.op == "call_function" and "_assert_scalar" in str(node.target):
            yield from _breaking(node, own)


def _breaking(node: fx.Node, own: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """The size nearest to the sample that breaks an assertion, for each symbol of it."""
    (asserted, *_) = node.args
    value = asserted.meta.get("val") if isinstance(asserted, fx.Node) else None
    if not isinstance(value, torch.SymBool):
        return
    formula = value.node.expr
    for symbol in sorted(formula.free_symbols, key=str):
        if str(symbol) not in own:
            continue
        others = {one: own[str(one)] for one in formula.free_symbols if one != symbol and str(one) in own}
        near = sorted(range(_LEAST, 2 * own[str(symbol)] + _TRIED), key=lambda size: abs(size - own[str(symbol)]))
        found = next((size for size in near if _is_broken(formula, {**others, symbol: size})), None)
        if found is not None:
            yield str(symbol), str(formula), found


def _is_broken(formula: Any, sizes: Mapping[Any, int]) -> bool:  # noqa: ANN401 - sympy's
    try:
        return bool(formula.subs(sizes) == False)  # noqa: E712 - sympy's own
    except ArithmeticError:  # a size of nothing on the way: the network has none there
        return False


def _at(program: ExportedProgram, samples: Mapping[str, Tensor], symbol: str, size: int) -> dict[str, Tensor] | None:
    """Inputs with the free size `symbol` of this `size`, and others as the samples have them."""
    chance, found = torch.Generator().manual_seed(0), {}
    for tensor, (name, sample) in zip(_placeholders(program), samples.items(), strict=True):
        shape = [
            size if isinstance(dim, torch.SymInt) and str(dim.node.expr) == symbol else own
            for dim, own in zip(tensor.shape, sample.shape, strict=True)
        ]
        if any(isinstance(d, torch.SymInt) and not d.node.expr.is_Symbol for d in tensor.shape):
            return None  # a size that hangs on another
        made = torch.zeros(shape, dtype=sample.dtype)
        found[name] = made.normal_(generator=chance) if sample.is_floating_point() else made
    return found


def _differs(module: nn.Module, program: ExportedProgram, given: Mapping[str, Tensor]) -> bool:
    with torch.no_grad(), _aten_place.quiet():
        try:
            wanted = _flat(module(**given))
        except Exception:  # noqa: BLE001 - the network does not run on this size: nothing is lost
            return False
        try:
            made = _flat(_Unchecked(program).run(*_fed(program, given)))
        except Exception:  # noqa: BLE001 - the program does not, where the network does
            return True
    return any(not _alike(one, other) for one, other in zip(wanted, made, strict=False)) or len(wanted) != len(made)


def _alike(wanted: Tensor, made: Tensor) -> bool:
    if wanted.shape != made.shape:
        return False
    if not wanted.is_floating_point() or not wanted.numel():
        return bool(torch.equal(wanted, made))
    most = float(wanted.nan_to_num().abs().max())
    return bool(torch.isclose(made, wanted, rtol=0, atol=_CLOSE * most, equal_nan=True).all())


def _flat(made: Any) -> list[Tensor]:  # noqa: ANN401 - whatever forward returns
    from torch.utils import _pytree

    return [one for one in _pytree.tree_leaves(made) if isinstance(one, Tensor)]


def _fed(program: ExportedProgram, given: Mapping[str, Tensor]) -> Sequence[Any]:
    inputs = iter(given.values())
    held = {**program.state_dict, **program.constants}
    return [
        next(inputs) if spec.kind == InputKind.USER_INPUT else held[str(spec.target)]
        for spec in program.graph_signature.input_specs
    ]


class _Unchecked(fx.Interpreter):
    """Runs a program on sizes that it was not meant for."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - fx's own
        if getattr(target, "_opname", "") in _ASSERTIONS:
            return None
        return super().call_function(target, args, kwargs)
