"""One file that runs at many widths: the widest network as it is, and what the others have beside its codes.

The narrower networks stand in the file's metadata without the codes of weights that are those of the widest shifted
(`compress/training/shifted`). Its engine reads the file as the widest; `narrowed` makes the others, by integer shifts
alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper

from convkit.compress import weights
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from convkit.compress.training.shifted import shift

KEY = "convkit.switch"
"""Of the metadata that hold the narrower networks."""
_VERSION, _LARGEST = 1, 1 << 28
"""Bytes of a narrower network without its codes, at most: what is compressed may claim to be anything."""
_BITS = 8


def plain(model: Model) -> Model:
    """`model`, whose weights of few bits are written in a byte each: shifted codes of the widest are."""
    weights.in_bytes(model.graph)
    return model


def packed(files: Mapping[int, ModelProto], beside: Mapping[str, Any] | None = None) -> ModelProto:
    """One file of the networks `files` by bits, whose weights are those of the widest shifted; with what is told
    `beside`.
    """
    wide = max(files)
    made = ModelProto()
    made.CopyFrom(files[wide])
    whole = dict(_codes(made))
    widths = {str(bits): _without(files[bits], whole) for bits in sorted(files, reverse=True) if bits != wide}
    entry = made.metadata_props.add()
    entry.key, entry.value = (
        KEY,
        json.dumps(
            {"version": _VERSION, "widest": wide, "widths": widths, **(beside or {})},
            sort_keys=True,
        ),
    )
    return made


def widths(file: ModelProto) -> tuple[int, ...]:
    """Bits that `narrowed` makes networks of, the most first. Raises ConvkitError where it is no such file."""
    known = told(file)
    return (int(known["widest"]), *sorted(map(int, known["widths"]), reverse=True))


def narrowed(file: ModelProto, bits: int) -> ModelProto:
    """The network of this width, which the file holds. Raises ConvkitError for a width that it does not."""
    there = widths(file)
    if bits not in there:
        raise ConvkitError(f"the network has no width of {bits} bits", hint=f"it has {', '.join(map(str, there))}")
    whole = ModelProto()
    whole.CopyFrom(file)
    del whole.metadata_props[:]
    whole.metadata_props.extend(one for one in file.metadata_props if one.key != KEY)
    if bits == there[0]:
        return whole
    graph, shifts = told(file)["widths"][str(bits)]
    made, codes = _unpacked(graph, bits), dict(_codes(whole))
    for tensor in made.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise _damaged(bits, f"{tensor.name} lies in another file")
        if tensor.name in shifts:
            _fill(tensor, codes, shifts[tensor.name], bits)
    return made


def _codes(file: ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in file.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.data_location != TensorProto.EXTERNAL:
            yield tensor.name, numpy_helper.to_array(tensor)


def _without(file: ModelProto, whole: Mapping[str, np.ndarray]) -> tuple[str, dict[str, tuple[int, int]]]:
    """What `file` has beside the codes of `whole` shifted, and by what they are."""
    bare = ModelProto()
    shifts: dict[str, tuple[int, int]] = {}
    bare.CopyFrom(file)
    for tensor in bare.graph.initializer:
        known = whole.get(tensor.name)
        found = None if known is None or tensor.data_type != TensorProto.INT8 else _shift_of(tensor, known)
        if found is not None:
            shifts[tensor.name] = found
            tensor.ClearField("raw_data")
            tensor.ClearField("int32_data")
    text = zlib.compress(bare.SerializeToString(deterministic=True), 9)
    return base64.b64encode(text).decode("ascii"), shifts


def _shift_of(tensor: TensorProto, whole: np.ndarray) -> tuple[int, int] | None:
    """(by what, to how many bits) the codes `whole` are shifted in `tensor`; None where it holds others."""
    own = numpy_helper.to_array(tensor)
    if own.shape != whole.shape:
        return None
    # The widest has 8 bits, or 7 where sums of more would overflow.
    tried = ((by, wide - by) for by in range(_BITS - 1) for wide in (_BITS, _BITS - 1) if wide > by)
    return next((one for one in tried if np.array_equal(_narrow(whole, *one), own)), None)


def _narrow(codes: np.ndarray, by: int, bits: int) -> np.ndarray:
    half = 1 << bits - 1
    return shift(codes, by, -half, half - 1)


def _fill(tensor: TensorProto, codes: Mapping[str, np.ndarray], shifted: object, bits: int) -> None:
    known = codes.get(tensor.name)
    match shifted:
        case [int(by), int(own)] if known is not None and 0 <= by < _BITS and 0 < own <= _BITS:
            if tuple(tensor.dims) == known.shape and tensor.data_type == TensorProto.INT8:
                tensor.raw_data = _narrow(known, by, own).tobytes()
                return
    raise _damaged(bits, f"{tensor.name} is not that of the widest, shifted")


def told(file: ModelProto) -> dict[str, Any]:
    """What stands in the metadata, its form checked. Raises ConvkitError where it is no such file."""
    text = next((one.value for one in file.metadata_props if one.key == KEY), None)
    if text is None:
        raise ConvkitError("the network has one width", hint="`convkit train --switch 8,6,4` makes one of many")
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConvkitError(f"its {KEY} is damaged: {error}", hint="make the file again") from error
    match known:
        case {"version": int(version)} if version != _VERSION:
            raise ConvkitError(
                f"its {KEY} is of version {version}", hint="use the convkit that made it, or a newer one"
            )
        case {"version": int(), "widest": int(), "widths": dict(narrow)} if all(map(_is_width, narrow.items())):
            return dict(known)
    raise ConvkitError(f"its {KEY} is damaged", hint="make the file again")


def _is_width(entry: tuple[str, object]) -> bool:
    bits, held = entry
    match held:
        case [str(), dict()]:
            return bits.isascii() and bits.isdigit()
    return False


def _unpacked(text: str, bits: int) -> ModelProto:
    try:
        found = zlib.decompressobj()
        raw = found.decompress(base64.b64decode(text, validate=True), _LARGEST)
        if found.unconsumed_tail or not found.eof:
            raise _damaged(bits, "it is too large or cut off")
        return onnx.load_model_from_string(raw)
    except (binascii.Error, zlib.error, DecodeError, TypeError, ValueError) as error:
        raise _damaged(bits, str(error)) from error


def _damaged(bits: int, why: str) -> ConvkitError:
    return ConvkitError(f"its network of {bits} bits is damaged: {why}", hint="make the file again")
