"""Weights in fewer bits than the type that engines compute with: packed in the file, unpacked when it is opened.

The codes' bits stand in planes of 8, 4, 2 and 1 bits, a plane's fields side by side in bytes. Standard operators put
them together again from constants alone, which engines compute once, when they open the file: their kernels then find
the 8-bit codes that they would find in a file without this.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from convkit.compress.floating import Floating
from convkit.compress.format import Format, Integer
from convkit.export.graph import GraphWriter

_PLANES = (8, 4, 2, 1)
_BYTE = 8
_WORTH_IT = 1024
"""Bytes that packing must save: its operators take about as many."""
_INT32 = torch.int32


def worth_it(number: Format, codes: Tensor) -> bool:
    """Whether `codes` take much less in bits of their own; their type must have codes of fewer bits."""
    is_coded = isinstance(number, Integer | Floating) and number.bits < min(codes.itemsize * _BYTE, sum(_PLANES) + 1)
    return is_coded and codes.nbytes - number.filed_bytes(codes.numel()) > _WORTH_IT


def write(graph: GraphWriter, name: str, codes: Tensor, number: Format) -> str:
    """Write `codes`, in the type that `number` is stored in, as packed bytes; returns the name of the tensor."""
    indices, shift = _indices(codes, number).flatten(), 0
    total = ""
    for width in (width for width in _PLANES if number.bits & width):
        field = _plane(graph, f"{name}.bits{shift}", (indices >> shift) & (2**width - 1), width)
        place = _op(graph, "Mul", f"{name}.place{shift}", field, _integer(graph, 2**shift)) if shift else field
        total = _op(graph, "Add", f"{name}.sum{shift}", total, place) if total else place
        shift += width
    shape = graph.initializer(f"{name}.shape", torch.tensor(codes.shape))
    if isinstance(number, Integer):
        total = _op(graph, "Add", f"{name}.codes", total, _integer(graph, number.low))
    else:
        total = _op(graph, "Gather", f"{name}.numbers", graph.initializer(f"{name}.table", _table(number)), total)
    typed = _op(graph, "Cast", f"{name}.typed", total, to=codes.dtype)
    return _op(graph, "Reshape", name, typed, shape)


def _plane(graph: GraphWriter, name: str, field: Tensor, width: int) -> str:
    """One field of `width` bits for each code, int32 [N]: fields N/S apart share a byte, S of them."""
    shared = _BYTE // width
    padded = torch.cat([field, field.new_zeros(-len(field) % shared)]).reshape(shared, -1)
    places = _places(width)
    packed = graph.initializer(f"{name}.packed", (padded * places).sum(0).to(torch.uint8))
    numbers = _op(graph, "Cast", f"{name}.bytes", packed, to=_INT32)
    shifted = _op(graph, "Div", f"{name}.shifted", numbers, graph.initializer(f"places{width}", places))
    fields = _op(graph, "Mod", f"{name}.fields", shifted, _integer(graph, 2**width))
    flat = _op(graph, "Reshape", f"{name}.flat", fields, graph.initializer("flat", _vector(-1)))
    if padded.numel() == len(field):
        return flat
    ends = [graph.initializer(f"at{end}", _vector(end)) for end in (0, len(field))]
    return _op(graph, "Slice", f"{name}.cut", flat, *ends)


def _indices(codes: Tensor, number: Format) -> Tensor:
    """Each code counted from 0, int32: integers from the lowest, floats by sign and magnitude."""
    if isinstance(number, Integer):
        return codes.to(_INT32) - number.low
    assert isinstance(number, Floating)  # noqa: S101 - the caller asked whether it is worth it
    values, table = codes.float(), number.magnitudes()
    magnitude = torch.searchsorted(table, values.abs().contiguous()).to(_INT32)
    return magnitude + torch.signbit(values).to(_INT32) * (1 << (number.bits - 1))


@functools.cache
def _table(number: Format) -> Tensor:
    """The number of each index."""
    assert isinstance(number, Floating)  # noqa: S101 - integers are their own
    found = number.magnitudes()
    return torch.cat([found, -found])


@functools.cache
def _places(width: int) -> Tensor:
    return torch.tensor([[2 ** (width * place)] for place in range(_BYTE // width)], dtype=_INT32)


@functools.cache
def _vector(value: int) -> Tensor:
    return torch.tensor([value])


@functools.cache
def _scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=_INT32)


def _integer(graph: GraphWriter, value: int) -> str:
    return graph.initializer(f"integer{value}", _scalar(value))


def _op(graph: GraphWriter, operator: str, name: str, *inputs: str, **attributes: object) -> str:
    result = graph.value_name(name)
    graph.node(operator, result, inputs, [result], **attributes)
    return result
