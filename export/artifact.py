"""The Artifact: the file an engine runs, in an output folder that says what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import nested, record, strange

if TYPE_CHECKING:
    import onnx

_IN_ONE_PIECE = 2**31 - 2**24
"""Bytes of initializers up to which protobuf, whose limit is 2 GiB, holds a model with its nodes."""

_APART = 128
"""Bytes from which a tensor goes into the external data; scalars and scales stay readable in the file."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A deployable model: its file, the sha256 of it and its external data, the engine it is for ("" for any)."""

    path: Path
    digest: str
    engine: str


def name_nodes(model: onnx.ModelProto) -> bool:
    """Give every node of `model` a name of its own, that of what it makes where it has none: engines name their layers
    so. Whether any was changed.
    """
    taken: set[str] = set()
    changed = False
    for node in nested.nodes(model.graph.node):
        wanted = node.name or next(filter(None, node.output), "node")
        name, number = wanted, 1
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name)
        changed |= name != node.name
        node.name = name
    return changed


def drop_unread(model: onnx.ModelProto) -> None:
    """Take out constants that nobody reads any more, and what is known of tensors that are gone."""
    made = {name for node in model.graph.node for name in node.output}
    read = set(nested.uses(model.graph))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    known = [info for info in model.graph.value_info if info.name in made]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(kept)
    model.graph.value_info.extend(known)


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def write_onnx(model: onnx.ModelProto, path: Path, *, in_one_piece: int = _IN_ONE_PIECE) -> str:
    """Write `model` to `path`, its weights beside it in `path`.data where they are too large for one file.

    Runs ONNX's checker, with shape inference, on what was written; returns the digest. `path`'s folder is the
    caller's to replace as a whole (`record.output_folder`). The same model gives the same bytes.
    """
    import onnx

    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= in_one_piece:
        record.write_bytes(path, serialized(model))
        with strange.apart(model):
            onnx.checker.check_model(model, full_check=True)
        return record.digest_file(path)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # onnx appends to what is there
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    onnx.save_model(apart, path, save_as_external_data=True, location=data.name, size_threshold=_APART)
    if not strange.nodes(model):  # the checker, which must read the file, would not take them
        onnx.checker.check_model(path, full_check=True)
    return record.digest_json([record.digest_file(path), record.digest_file(data)])
