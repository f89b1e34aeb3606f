"""Trace a module with torch.export, and say in one line why it cannot be traced."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Dim, InputShape
from convkit.compress.sources import _aten_branch, _aten_place, _aten_size
from convkit.compress.sources._aten_program import FreeSizes

Shapes = Mapping[str, InputShape]
_FIXED = re.compile(r"static shape of (?P<size>\d+) for dimension inputs\['(?P<input>\w+)'\]\.shape\[(?P<axis>\d+)\]")
_SYMBOL = re.compile(r"\bs\d+\b")
"""What torch calls a free size."""
_INTEGERS = re.compile(r"\bLong\b|\bLongTensor\b")
"""What torch asks for where it is given floats as indices."""
_EXAMPLE = "such as --shape {}:Nx3x224x224"


def export(module: nn.Module, shapes: Shapes, name: str) -> tuple[ExportedProgram, list[str], FreeSizes]:
    """The program of `module` in evaluation mode, its inputs' names in order, and its free sizes.

    Raises ConvkitError when inputs and forward's parameters do not match, for control flow that depends on the data
    (file and line), for a free size that the model fixes, and for whatever forward raises on these shapes.
    """
    names = inputs(module, shapes, name)
    samples = {key: _sample(module, *shapes[key]) for key in names}
    free = {key: {i: ExportDim.DYNAMIC for i, dim in enumerate(shapes[key][0]) if isinstance(dim, str)}
            for key in names}  # fmt: skip
    try:
        with _aten_place.quiet():
            program = torch.export.export(
                module.eval(), (), kwargs=samples, dynamic_shapes=free, strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )  # fmt: skip
    except Exception as error:
        raise _explained(error, name, samples, shapes, _layer(error, module)) from error
    sizes = _free_sizes(program, names, shapes)
    decision = _aten_branch.first(module, program, samples) if sizes.names else None
    if decision is not None:
        raise _decided(decision, name, shapes, sizes)
    return program, names, sizes


def inputs(module: nn.Module, shapes: Shapes, name: str) -> list[str]:
    """The inputs in the order of forward's parameters. Raises ConvkitError where they and `shapes` do not match."""
    taken = inspect.signature(module.forward).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    named = [p for p in taken if p.kind not in kinds]
    if not named:
        raise ConvkitError(f"forward of {name} names no inputs", hint="wrap it in a forward(self, x)")
    known = [p.name for p in named]
    for key in shapes:
        if key not in known:
            raise ConvkitError(f"{name} has no input {key!r}", hint=f"its inputs are: {', '.join(known)}")
    for p in named:
        if p.default is p.empty and p.name not in shapes:
            raise ConvkitError(f"the shape of input {p.name!r} of {name} is missing", hint=_EXAMPLE.format(p.name))
    if not shapes:
        raise ConvkitError(f"{name} needs the shape of an input", hint=_EXAMPLE.format(known[0]))
    return [key for key in known if key in shapes]


def _sample(module: nn.Module, shape: tuple[Dim, ...], sample: tuple[int, ...], dtype: str = "") -> Tensor:
    """Zeros to trace on, of the weights' type where none is named. A free size of 1 is traced as 2: torch would take
    the 1 for fixed."""
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    sizes = [max(size, 2) if isinstance(dim, str) else size for dim, size in zip(shape, sample, strict=True)]
    return torch.zeros(sizes, dtype=getattr(torch, dtype) if dtype else own)


def _free_sizes(program: ExportedProgram, names: list[str], shapes: Shapes) -> FreeSizes:
    """Every symbol of the program by the user's name of the first dimension that has it."""
    symbols: dict[str, str] = {}
    samples: dict[str, int] = {}
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name, user_input in zip(names, program.graph_signature.user_inputs, strict=True):
        sizes = placeholders[str(user_input)].meta["val"].shape
        for dim, size, sample in zip(shapes[name][0], sizes, shapes[name][1], strict=True):
            if isinstance(dim, str):
                symbols.setdefault(str(_aten_size.expression(size)), dim)
                samples.setdefault(str(_aten_size.expression(size)), sample)
    return FreeSizes(symbols, samples)


def _explained(error: Exception, name: str, samples: Mapping[str, Tensor], shapes: Shapes, layer: str) -> ConvkitError:
    place = f"{layer}{_line(error)}"
    if isinstance(error, GuardOnDataDependentSymNode):
        return ConvkitError(
            f"{name} decides by the values of its input{place}: one graph cannot hold both ways",
            hint="write it with torch.where, or keep the decision out of forward",
        )
    if fixed := _FIXED.search(str(error)):
        declared, axis = shapes[fixed["input"]], int(fixed["axis"])
        dim = declared.shape[axis]
        given = ":".join(filter(None, (declared.dtype, "x".join(map(str, _pinned(declared, axis))))))
        return ConvkitError(
            f"{name} fixes the size {dim!r} of input {fixed['input']!r}, which is given as free{place}",
            hint=f"give a number: --shape {fixed['input']}:{given}",
        )
    given = ", ".join(f"{key}:{'x'.join(map(str, sample.shape))}" for key, sample in samples.items())
    first = _SYMBOL.sub("free", (str(error).strip() or type(error).__name__).splitlines()[0])
    hint = (
        f"say so: --shape {next(iter(shapes))}:int64:…"
        if _INTEGERS.search(first)
        else "check the shape, or fix the model"
    )
    return ConvkitError(f"{name} does not run on {given}{place}: {first}", hint=hint)


def _decided(decision: _aten_branch.Decision, name: str, shapes: Shapes, sizes: FreeSizes) -> ConvkitError:
    """The error of a network that does otherwise on another size."""
    dim = sizes.names[decision.symbol]
    key, axis = next((key, declared.shape.index(dim)) for key, declared in shapes.items() if dim in declared.shape)
    said = sizes.named(decision.condition)
    given = ":".join(filter(None, (shapes[key].dtype, "x".join(map(str, _pinned(shapes[key], axis))))))
    return ConvkitError(
        f"{name} decides by the size {dim!r} of input {key!r}: "
        f"what was traced holds for {said}, not for {decision.size}",
        hint=f"give a number: --shape {key}:{given}",
    )


def _pinned(declared: InputShape, axis: int) -> list[Dim]:
    """The shape with a number on `axis`; other free sizes but the batch need a sample."""
    free = [
        dim if i == 0 or not isinstance(dim, str) else f"{dim}={declared.sample[i]}"
        for i, dim in enumerate(declared.shape)
    ]
    return [declared.sample[i] if i == axis else dim for i, dim in enumerate(free)]


def _layer(error: BaseException, module: nn.Module) -> str:
    """` in its layer NAME`, the innermost one whose forward did not end; nothing where that is the whole module."""
    names = {id(layer): name for name, layer in module.named_modules()}
    calls = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    found = [names.get(id(layer), "") for layer in calls if isinstance(layer, nn.Module)]
    return next((f" in its layer {name!r}" for name in reversed(found) if name), "")


def _line(error: BaseException) -> str:
    """` (FILE:LINE)`, the innermost line of the user's own code; nothing where the error is torch's alone."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _aten_place.is_torch(f.filename) and f.filename != __file__]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
