"""Bytes of a model on disk: its file and the files beside it that hold its weights."""

from __future__ import annotations

from pathlib import Path

from convkit.compress import record
from convkit.compress.errors import ConvkitError


def model_size(path: str) -> int | None:
    """Bytes, external data included; None for a model that is no file (a factory, `null`)."""
    file = Path(path)
    if not file.is_file():
        return None
    return file.stat().st_size + sum(weights.stat().st_size for weights in _weights(file))


def model_digest(path: str) -> str | None:
    """sha256 of the file, and of those that hold its weights; None for a model that is no file."""
    file = Path(path)
    if not file.is_file():
        return None
    digests = [record.digest_file(one) for one in (file, *_weights(file))]
    return digests[0] if len(digests) == 1 else record.digest_json(digests)


def _weights(file: Path) -> list[Path]:
    if file.suffix == ".xml":
        return [weights for weights in (file.with_suffix(".bin"),) if weights.is_file()]
    return _external(file) if file.suffix == ".onnx" else []


def _external(file: Path) -> list[Path]:
    """Existing files that `file`'s tensors name, each once; those outside its folder are refused."""
    import onnx
    from google.protobuf.message import DecodeError

    from convkit.compress.sources import onnx as source

    try:
        model = onnx.load(file, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ConvkitError(f"{file} is no ONNX file: {error}", hint="write or download the model again") from error
    folder = file.parent.resolve()
    entries = (entry for tensor in source.external(model) for entry in tensor.external_data)
    found = {(folder / entry.value).resolve() for entry in entries if entry.key == "location"}
    for path in sorted(found):
        if not path.is_relative_to(folder):
            raise ConvkitError(f"{file} keeps weights outside its folder, in {path}", hint="put them beside the model")
    return sorted(path for path in found if path.is_file())
