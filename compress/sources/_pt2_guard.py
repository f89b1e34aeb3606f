"""What makes a .pt2 archive safe to hand to torch, which by itself trusts the file.

torch.export.load falls back to full unpickling, loads compiled libraries that an archive carries, evaluates size
formulas as Python, looks operators up by dotted path and later compiles the program's names as code. So before it
sees an archive: no pickles but sample inputs that are plain tensors, no libraries, formulas of known functions only,
operators of aten only, and names that are names. All is read by torch's own reader, so that both see the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader

from convkit.compress import archive
from convkit.compress.errors import ConvkitError
from convkit.compress.sources import _pt2_formula

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {"data/weights/": "data/weights/model_weights_config.json",
            "data/constants/": "data/constants/model_constants_config.json"}  # fmt: skip
_TARGET = re.compile(
    r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|torch\.sym_\w+|math\.(trunc|floor|ceil)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
_NAME = re.compile(r"[\w.@:+ -]*")
_FREE_TEXT = {"stack_trace", "as_string", "as_strings", "metadata", "in_spec", "out_spec", "nn_module_stack"}
_SPECS = {"in_spec", "out_spec"}
_LARGEST = 2**31
"""Elements of a tensor."""


def check(data: bytes) -> None:
    """Raise ConvkitError, or anything torch's reader raises on broken bytes, unless the archive is safe to load."""
    archive.check_zip(io.BytesIO(data), "the program")
    reader = PT2ArchiveReader(io.BytesIO(data))
    names = reader.get_file_names()
    if any(name.startswith("data/aotinductor/") for name in names):
        raise ConvkitError("it holds compiled code", hint="save the program with torch.export.save")
    if [name for name in names if name.startswith("models/")] != [_MODEL]:
        raise ConvkitError("it does not hold one program called model", hint="save it with torch.export.save")
    for folder, config in _CONFIGS.items():
        _check_payload(reader, names, folder, config)
    _check_samples(reader.read_bytes(_SAMPLES))
    _check_program(json.loads(reader.read_bytes(_MODEL)))


def _check_payload(reader: PT2ArchiveReader, names: list[str], folder: str, config: str) -> None:
    """Tensors are raw bytes; whatever torch would unpickle is refused."""
    if config not in names:
        raise _unsafe(f"{folder}model.pt")
    for name, entry in json.loads(reader.read_bytes(config))["config"].items():
        _check_name(name)
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise _unsafe(name)
        sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        _check_size(name, sizes, reader.archive_file.get_record_size(folder + entry["path_name"]))


def _check_size(name: str, sizes: list[int], held: int) -> None:
    count = math.prod(sizes)
    if min(sizes, default=0) < 0 or count > _LARGEST or count > max(held, 0):
        raise ConvkitError(f"tensor {name!r} is cut short", hint="save the program again")


def _check_samples(data: bytes) -> None:
    """The same bytes that torch.export.load reads first with weights_only=True, and fully only if that fails."""
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch.load raises what it meets in broken bytes
        raise _unsafe("its sample inputs") from error


def _unsafe(what: str) -> ConvkitError:
    return ConvkitError(f"{what} would have to be unpickled, which runs code", hint="save it with tensors as inputs")


def _check_program(program: Mapping[str, Any]) -> None:
    for key, text in _texts("", program):
        if key == "target":
            _check_target(text)
        elif key == "expr_str":
            _pt2_formula.check(text)
        elif key in _SPECS:
            _check_spec(text)
        elif key not in _FREE_TEXT:
            _check_name(text)
    for formula in program["range_constraints"]:
        _pt2_formula.check(formula)


def _texts(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Every text of a JSON document with the key it stands under, keys themselves included."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(key, item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if key not in {"range_constraints", "metadata"}:
                yield "", name
            if key != "metadata" and name != "guards_code":
                yield from _texts(name, item)


def _check_target(text: str) -> None:
    if not _TARGET.fullmatch(text) or "from_file" in text or "__" in text.removeprefix("torch.ops."):
        raise ConvkitError(f"operator {text!r} has no ONNX form", hint="write it with operators of torch itself")


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ConvkitError(f"{text[:40]!r} is no name", hint="save the program again with torch.export.save")


def _check_spec(text: str) -> None:
    """How inputs and outputs are nested: JSON, with more JSON inside its texts."""
    for _, inner in _texts("", json.loads(text)):
        if inner[:1] in {"[", "{"}:
            _check_spec(inner)
        else:
            _check_name(inner.strip('"'))
