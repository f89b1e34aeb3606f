"""An ONNX file on disk becomes one checked protobuf with all its data inside, or a ConvkitError.

The file is a stranger's: nothing is trusted to be consistent, to stay in its folder or to fit in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import TensorProto

from convkit.compress import nested, strange
from convkit.compress.errors import ConvkitError
from convkit.compress.sources._onnx_functions import inlined

OLDEST, NEWEST = 9, 25
"""Opsets of ai.onnx that convkit reads."""

_AGAIN = "export it again, or check it with `python -m onnx.checker`"
_ONE_PIECE = 2**31 - 1
"""protobuf holds no larger message; the checker is skipped for one."""
_NODES = 1_000_000
"""That functions may come to: far more than any network has."""


def read(path: Path) -> tuple[onnx.ModelProto, str]:
    """As `whole`, functions inlined."""
    model, digest = whole(path)
    return inlined(path, model, _AGAIN), digest


def whole(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in the file, external data loaded, and the sha256 of all its files.

    Raises ConvkitError for a file that is missing, empty, truncated, no ONNX, inconsistent, of an opset convkit does
    not read, or whose external data is missing or outside the file's folder.
    """
    data = _bytes(path)
    model = _parse(path, data)
    digest = hashlib.sha256(data)
    for tensor in external(model):
        digest.update(_load_external(path, tensor))
    _check_functions(path, model)
    _check(path, model)
    return model, digest.hexdigest()


def opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConvkitError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    if not data:
        raise ConvkitError(f"{path} is empty", hint="download or export it again")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ConvkitError(f"{path} is no ONNX file, or a truncated one", hint=_AGAIN) from error
    if broken := _broken_text(model):
        raise ConvkitError(f"{path} is damaged: it holds a {broken!r} that is no text", hint=_AGAIN)
    if not model.HasField("graph") or not model.graph.output:
        raise ConvkitError(f"{path} holds no ONNX graph", hint=_AGAIN)
    if not OLDEST <= opset(model) <= NEWEST:
        raise ConvkitError(
            f"{path} uses ai.onnx opset {opset(model)}; convkit reads {OLDEST} to {NEWEST}",
            hint="convert it with onnx.version_converter, or export it again",
        )
    return model


def _broken_text(message: Message) -> str:
    """The first field of text that is not UTF-8, which protobuf hands out as bytes."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | int | float | Message) else value
        if field.type == FieldDescriptor.TYPE_STRING and not all(isinstance(part, str) for part in parts):
            return str(field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            found = next(filter(None, map(_broken_text, parts)), "")
            if found:
                return found
    return ""


def external(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Tensors whose bytes are in other files."""
    nodes = [node for holder in (model.graph, *model.functions) for node in nested.nodes(holder.node)]
    graphs = [model.graph, *(body for node in nodes for body in nested.bodies(node))]
    held = [tensor for graph in graphs for tensor in graph.initializer]
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        held += [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
    yield from (tensor for tensor in held if tensor.data_location == TensorProto.EXTERNAL)


def _load_external(path: Path, tensor: TensorProto) -> bytes:
    """Move the tensor's bytes from its file into the tensor; its file must lie in the model's folder or below."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get("location", "")
    file = _inside(path.parent, location, tensor.name)
    try:
        offset = int(where.get("offset", "0"))
        length = int(where["length"]) if "length" in where else -1
        if offset + max(length, 0) > file.stat().st_size:
            raise ConvkitError(f"{location!r} ends before the data of tensor {tensor.name!r}", hint=_AGAIN)
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
    except (OSError, ValueError, OverflowError) as error:
        raise ConvkitError(
            f"cannot read the external data of tensor {tensor.name!r} from {location!r}: {error}",
            hint=f"keep {location!r} beside {path.name}",
        ) from error
    tensor.raw_data = data
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return data


def _inside(folder: Path, location: str, name: str) -> Path:
    try:
        file = (folder / location).resolve()
        inside = bool(location) and not Path(location).is_absolute() and file.is_relative_to(folder.resolve())
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise ConvkitError(
            f"the external data of tensor {name!r} lies outside the model's folder: {location!r}",
            hint="keep a model's data beside it; convkit reads nothing else",
        )
    return file


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    """A function that calls itself cannot be inlined, and the inliner does not notice; nor how many nodes a few that
    call each other come to."""
    left = {(f.domain, f.name): [(n.domain, n.op_type) for n in nested.nodes(f.node)] for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    while left:
        done = [name for name, called in left.items() if not left.keys() & called]
        if not done:
            raise ConvkitError(f"{path}: function {next(iter(left))[1]!r} calls itself", hint=_AGAIN)
        for name in done:
            sizes[name] = sum(sizes.get(called, 1) for called in left.pop(name))
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in nested.nodes(model.graph.node))
    if total > _NODES:
        raise ConvkitError(f"{path}: its functions come to {total:,} nodes", hint="export it without functions")


def _check(path: Path, model: onnx.ModelProto) -> None:
    if model.graph.sparse_initializer:
        raise ConvkitError(f"{path} stores sparse tensors, which convkit does not read", hint="store them densely")
    if model.ByteSize() > _ONE_PIECE:
        return
    try:
        with _shapes_present(model), strange.apart(model):
            onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, EncodeError, ValueError, RuntimeError) as error:
        raise ConvkitError(f"{path} is not valid ONNX: {_line(error)}", hint=_AGAIN) from error


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _shapes_present(model: onnx.ModelProto) -> Iterator[None]:
    """The checker wants a shape on every input and output, which no engine does and many a file lacks."""
    values = [*model.graph.input, *model.graph.output]
    bare = [
        v.type.tensor_type
        for v in values
        if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")
    ]
    for tensor in bare:
        tensor.shape.SetInParent()
    yield
    for tensor in bare:
        tensor.ClearField("shape")
