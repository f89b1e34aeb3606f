"""The network that was given, as it was given: what a plan that changes nothing comes to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import check_file

if TYPE_CHECKING:
    import onnx

    from convkit.compress.model import Model


def own_bytes(path: str, model: Model) -> bytes | None:
    """The user's own ONNX file that `model` was loaded from; None where it is no such file, keeps its weights in
    another one, or takes inputs that were given a value."""
    graph = _whole(path)
    if graph is None:
        return None
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in stored]
    return Path(path).read_bytes() if inputs == [spec.name for spec in model.inputs] else None


def as_it_stands(path: str) -> bytes | None:
    """An ONNX file, whatever operators it has; None for anything else, and where its weights are in another file.

    Raises ConvkitError for one that cannot be read.
    """
    return None if _whole(path) is None else Path(path).read_bytes()


def _whole(path: str) -> onnx.GraphProto | None:
    """The graph of an ONNX file that is all of the network."""
    import onnx

    if not path.endswith(".onnx"):
        return None
    check_file(path)
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise ConvkitError(f"{path} is no ONNX file", hint="export the network again") from error
    apart = any(onnx.external_data_helper.uses_external_data(tensor) for tensor in graph.initializer)
    return None if apart else graph
