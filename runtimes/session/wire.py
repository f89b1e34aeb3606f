"""Messages between convkit and an engine's own process: JSON fields and raw arrays, nothing that runs when read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import ml_dtypes  # noqa: F401 - makes numpy know bfloat16 by name
import numpy as np

_HEADER = struct.Struct(">Q")

Arrays = Mapping[str, np.ndarray]


def send(stream: IO[bytes], fields: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write one message; a closed pipe raises BrokenPipeError."""
    held = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    shapes = [[name, array.dtype.name, list((arrays or {})[name].shape)] for name, array in held.items()]
    head = json.dumps({"fields": fields, "arrays": shapes}).encode()
    stream.write(_HEADER.pack(len(head)) + head)
    for array in held.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message; raises EOFError when the other side is gone."""
    (size,) = _HEADER.unpack(_exactly(stream, _HEADER.size))
    head = json.loads(_exactly(stream, size))
    arrays = {}
    for name, kind, shape in head["arrays"]:
        dtype = np.dtype(kind)
        body = _exactly(stream, dtype.itemsize * int(np.prod(shape)))
        arrays[name] = np.frombuffer(bytearray(body), dtype).reshape(shape)
    return head["fields"], arrays


def _exactly(stream: IO[bytes], size: int) -> bytes:
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return body
