"""The network that was given, as it was given: what a plan that changes nothing comes to, and what has layers of the
user's own, which an engine knows and convkit does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from convkit.compress.model import Model, ModelRef, TensorSpec


def own_bytes(path: str, model: Model) -> bytes | None:
    """The user's own ONNX file that `model` was loaded from; None where it is no such file, keeps its weights in
    another one, or takes inputs that were given a value or a size."""
    import onnx

    from convkit.compress.sources import onnx as source

    if not path.endswith(".onnx"):
        return None
    whole = onnx.load(path, load_external_data=False)
    graph, apart = whole.graph, any(True for _ in source.external(whole))
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    same = [value.name for value in inputs] == [spec.name for spec in model.inputs]
    as_given = not apart and same and all(map(_fits, inputs, model.inputs))
    return Path(path).read_bytes() if as_given else None


def _fits(value: onnx.ValueInfoProto, spec: TensorSpec) -> bool:
    """Whether the file has the sizes that `spec` fixes."""
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    fixed = [size for size in spec.shape if isinstance(size, int)]
    if len(sizes) != len(spec.shape):
        return not fixed
    return all(own == size for own, size in zip(sizes, spec.shape, strict=True) if isinstance(size, int))


def as_it_is(ref: ModelRef) -> tuple[onnx.ModelProto, str] | None:
    """What is in the user's ONNX file, and its digest; None for another kind of model, and where anything is to be
    changed in it. Only nodes without a name of their own get one."""
    from convkit.compress.sources import onnx as source
    from convkit.export import artifact

    if not ref.path.endswith(".onnx") or ref.weights or ref.args or ref.shapes:
        return None
    model, digest = source.whole(ref.path)
    artifact.name_nodes(model)
    return model, digest
