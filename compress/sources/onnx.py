"""ONNX files, opset 9 to 25, with external data and local functions.

Initial values of weights, constants and shapes are folded at load. Every free input dimension stays free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, Source, TensorSpec

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, fx

    from convkit.compress.sources._onnx_import import Importer


def _claims(path: str) -> bool:
    return path.lower().endswith(".onnx")


def load(ref: ModelRef) -> Model:
    """The Model in an ONNX file.

    A free dimension is tried at batch 1, 224 pixels, 3 channels or 16 slices. `ref.shapes` overrides free input
    dimensions and samples; `ref.args` turns inputs into constants of the given value. Raises ConvkitError for a file
    that is not valid, unsafe, holds unknown operators or broken weights.
    """
    from convkit.compress.sources import _onnx_file

    proto, digest = _onnx_file.read(Path(ref.path))
    return from_proto(proto, ref, digest)


def external(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Its tensors whose bytes are in another file, constants of nodes and of branches among them."""
    from convkit.compress.sources import _onnx_file

    yield from _onnx_file.external(model)


def whole(path: str) -> tuple[onnx.ModelProto, str]:
    """What is in an ONNX file, with all its data, and the digest that `load` gives it; operators may be anyone's.

    Raises ConvkitError for a file that is not valid or unsafe.
    """
    from convkit.compress.sources import _onnx_file

    return _onnx_file.whole(Path(path))


def from_proto(
    proto: onnx.ModelProto, ref: ModelRef, digest: str, samples: Mapping[str, Tensor] | None = None
) -> Model:
    """The Model in a checked and complete protobuf; `samples` are inputs to trace it on, random if not given."""
    from convkit.compress.model import sample_inputs
    from convkit.compress.sources import _onnx_file, _onnx_import, _onnx_inputs, _onnx_pads

    proto = _known_operators(proto)
    specs = _onnx_inputs.input_specs(proto.graph, ref)
    _onnx_pads.write_out(proto, {name: given.shape for name, given in ref.shapes.items()})
    importer = _onnx_import.Importer(proto.graph, _onnx_file.opset(proto))
    importer.constants(proto.graph)
    free = tuple(spec for spec in specs if spec.name not in ref.args)
    for spec in specs:
        if spec.name in ref.args:
            importer.graph.define(spec.name, _fixed(spec, ref.args[spec.name]))
    importer.inputs(free, samples or sample_inputs(free))
    importer.network(proto.graph)
    outputs = _outputs(importer, proto.graph.output)
    return Model(_module(importer, proto.graph.output), free, outputs, Path(ref.path).stem, digest)


def _known_operators(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` with operators that are defined by others replaced by those; all that stay unknown are named."""
    import onnx.inliner

    from convkit.compress.sources import _onnx_import

    unknown = _onnx_import.missing(proto.graph)
    if not unknown:
        return proto
    wanted = sorted({(node.domain, node.op_type) for node in unknown})
    try:
        proto = onnx.inliner.inline_selected_functions(proto, wanted, inline_schema_functions=True)
    except (RuntimeError, ValueError):
        _onnx_import.raise_missing(unknown)
    if still := _onnx_import.missing(proto.graph):
        _onnx_import.raise_missing(still)
    return proto


def _fixed(spec: TensorSpec, value: object) -> Tensor:
    import torch

    try:
        tensor = torch.as_tensor(value, dtype=getattr(torch, spec.dtype))
        return tensor.expand(spec.sample).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        size = "x".join(map(str, spec.sample)) or "a scalar"
        raise ConvkitError(
            f"input {spec.name!r} ({spec.dtype}, {size}) cannot be {value!r}", hint="give a value of its kind"
        ) from error


def _outputs(importer: Importer, values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    from convkit.compress.sources import _onnx_inputs

    names = [value.name for value in values]
    if len(set(names)) != len(names):
        raise ConvkitError("two outputs of the graph share a name", hint="export the model again")
    return tuple(
        _onnx_inputs.output_spec(value, importer.graph.example(value.name), importer.graph.static(value.name))
        for value in values
    )


def _module(importer: Importer, values: Sequence[onnx.ValueInfoProto]) -> fx.GraphModule:
    from torch import fx

    graph = importer.graph
    graph.fx.output(tuple(graph.node(value.name) for value in values))
    module = fx.GraphModule(graph.tree.root, graph.fx)
    if module.graph.eliminate_dead_code():
        module.delete_all_unused_submodules()
        module.recompile()
    module.graph.lint()
    return module.eval()


PART = Source(claims=_claims, load=load)
