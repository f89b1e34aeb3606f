"""`.pt2` files of torch.export.save. Nothing in them is unpickled or run; what would have to be is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError
from convkit.compress.model import InputShape, Model, ModelRef, Source, check_dtype

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from convkit.compress.sources._aten_program import FreeSizes

_SPATIAL = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
_ANOTHER = "give another size in --shape"
_ARCHIVE = b"PK\x03\x04"


def _claims(path: str) -> bool:
    return path.lower().endswith(".pt2")


def load(ref: ModelRef) -> Model:
    """The Model in an exported program; its free sizes are those it was exported with.

    `ref.shapes` names them and gives their samples. Raises ConvkitError for a file that is broken, needs unpickling,
    was exported in training mode, or holds operators without an ONNX form.
    """
    from convkit.compress import record
    from convkit.compress.sources import _aten_program, _weights

    data = _read(Path(ref.path))
    program = _program(data, ref.path)
    _weights.check_finite(dict(program.named_parameters()), dict(program.named_buffers()))
    inputs = _input_names(program)
    sizes = _free_sizes(program, inputs, ref)
    digest = record.digest_json([record.digest_bytes(data), ref.shapes])
    return _aten_program.to_model(program, inputs, sizes, Path(ref.path).stem, digest)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConvkitError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
    if not data.startswith(_ARCHIVE):
        what = "is empty" if not data else "is no archive of torch.export.save"
        raise ConvkitError(f"{path} {what}", hint="save the program again with torch.export.save")
    return data


def _program(data: bytes, path: str) -> ExportedProgram:
    """The program, traced once more: that checks what the file says about sizes and types."""
    import torch

    from convkit.compress.sources import _aten_place, _pt2_guard

    try:
        with _aten_place.quiet():
            _pt2_guard.check(data)
            program: ExportedProgram = torch.export.load(io.BytesIO(data))
            # Guards are Python code in the file; what they check is traced anew.
            program._guards_code = []  # noqa: SLF001 - no public name
            _forget_bounds_of_formulas(program)
            program = program.run_decompositions({})
    except ConvkitError as error:
        raise ConvkitError(f"{path}: {error.message}", hint=error.hint) from error
    except Exception as error:  # torch raises what it meets in broken bytes
        raise ConvkitError(f"{path} is broken", hint="save the program again with torch.export.save") from error
    return program


def _forget_bounds_of_formulas(program: ExportedProgram) -> None:
    """torch's reader puts the bounds of sizes such as 32 times s0 among those of symbols; its next pass stops there."""
    from torch import SymInt

    shapes = (getattr(node.meta.get("val"), "shape", ()) for node in program.graph.nodes)
    for size in (size for shape in shapes for size in shape if isinstance(size, SymInt)):
        bounds = size.node.shape_env.var_to_range
        for formula in [key for key in bounds if not key.is_Symbol]:
            del bounds[formula]
        return


def _input_names(program: ExportedProgram) -> list[str]:
    """forward's own parameter names, where the file has them."""
    given = program.module_call_graph[0].signature if program.module_call_graph else None
    told = list(getattr(given, "forward_arg_names", None) or [])
    traced = [str(name) for name in program.graph_signature.user_inputs]
    return told if len(told) == len(traced) else traced


def _free_sizes(program: ExportedProgram, inputs: Sequence[str], ref: ModelRef) -> FreeSizes:
    """Symbols by the name in `ref.shapes`, or N and height, width …; samples from there, or 1 and what was traced."""
    from torch import Tensor

    from convkit.compress.sources import _aten_size
    from convkit.compress.sources._aten_program import FreeSizes

    for name in ref.shapes:
        if name not in inputs:
            raise ConvkitError(f"{ref.path} has no input {name!r}", hint=f"its inputs are: {', '.join(inputs)}")
    names: dict[str, str] = {}
    samples: dict[str, int] = {}
    held = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for name, traced in zip(inputs, program.graph_signature.user_inputs, strict=True):
        tensor = held[str(traced)]
        if not isinstance(tensor, Tensor):
            continue
        given = ref.shapes.get(name)
        if given is not None:
            check_dtype(name, str(tensor.dtype).removeprefix("torch."), given.dtype)
            _check_given(name, tuple(map(_aten_size.expression, tensor.shape)), given)
        for axis, size in enumerate(tensor.shape):
            formula = _aten_size.expression(size)
            for symbol in () if isinstance(formula, int) else sorted(map(str, formula.free_symbols)):
                own = given.shape[axis] if given else None
                names.setdefault(symbol, own if isinstance(own, str) else _dim_name(axis, tensor.ndim, names))
                wanted = given.sample[axis] if given else _sample(size, axis)
                found = _solved(formula, symbol, wanted)
                if found is None and given is not None:
                    told = str(formula).replace(symbol, names[symbol])
                    raise ConvkitError(f"{wanted} is no size of input {name!r}, which is {told}", hint=_ANOTHER)
                samples.setdefault(symbol, found or 1)
    return FreeSizes(names, samples)


def _solved(formula: Any, symbol: str, wanted: int) -> int | None:  # noqa: ANN401 - sympy's
    """What `symbol` is where a size that is `formula` of it, such as 32 times it, is `wanted`; None where it is none.

    torch frees sizes in no other form than a whole number of times one, and some more.
    """
    own = next(one for one in formula.free_symbols if str(one) == symbol)
    factor = formula.coeff(own)
    rest = formula - factor * own
    if not (factor.is_Integer and rest.is_Integer and factor > 0):
        return wanted
    found, over = divmod(wanted - int(rest), int(factor))
    return found if found > 0 and not over else None


def _check_given(name: str, held: Sequence[object], given: InputShape) -> None:
    sizes = "x".join(str(size) if isinstance(size, int) else "free" for size in held)
    fits = len(given.sample) == len(held)
    if not fits or any(isinstance(own, int) and own != got for own, got in zip(held, given.sample, strict=True)):
        raise ConvkitError(
            f"input {name!r} is {sizes} in the program, not {'x'.join(map(str, given.shape))}",
            hint="leave --shape away, or export the program with the shape you need",
        )


def _dim_name(axis: int, rank: int, names: dict[str, str]) -> str:
    spatial = _SPATIAL.get(rank, ())
    place = axis - (rank - len(spatial))
    wanted = "N" if axis == 0 else spatial[place] if place >= 0 else f"d{axis}"
    taken = set(names.values())
    count, name = 1, wanted
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def _sample(size: object, axis: int) -> int:
    """A batch of one; elsewhere the size the program was traced with."""
    if axis == 0:
        return 1
    return int(getattr(getattr(size, "node", None), "hint", None) or 1)


PART = Source(claims=_claims, load=load)
