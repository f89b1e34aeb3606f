"""The inputs and outputs of an ONNX graph as TensorSpecs.

A free dimension is a symbol: its ONNX name if that is one, else N for the first dimension and height, width, depth
or length for the spatial ones. Its sample size is 1 for the first dimension and 224 for every other, but 3 for free
channels (dimension 1 of rank 4 and above) and 16 for depth, unless `ModelRef.sizes` tells those of the data;
`ModelRef.shapes` overrides both shape and sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import onnx
from torch import Tensor

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Dim, InputShape, ModelRef, TensorSpec, check_dtype
from convkit.compress.sources._onnx_operation import dtype_name

_SPATIAL = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
_CHANNELS, _DEPTH, _OTHER = 3, 16, 224
_LARGEST = 2**27
"""Elements of an input."""


def input_specs(graph: onnx.GraphProto, ref: ModelRef) -> tuple[TensorSpec, ...]:
    """Specs of the inputs that are no initializers (before IR version 4 every initializer is an input too)."""
    held = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in held]
    names = {value.name for value in values}
    for name in (*ref.shapes, *ref.args):
        if name not in names:
            raise ConvkitError(f"{ref.path} has no input {name!r}", hint=f"its inputs are: {', '.join(sorted(names))}")
    used: set[str] = set()
    return tuple(_input_spec(value, ref, used) for value in values)


def _input_spec(value: onnx.ValueInfoProto, ref: ModelRef, used: set[str]) -> TensorSpec:
    dtype = _dtype(value)
    declared = _declared(value)
    if declared is None:
        if value.name not in ref.shapes:
            raise ConvkitError(f"input {value.name!r} declares no shape", hint=f"give one: {value.name}:1x3x224x224")
        declared = tuple("" for _ in ref.shapes[value.name][0])
    rank = len(declared)
    own: dict[str, None] = {}
    shape = tuple(dim if isinstance(dim, int) else _symbol(dim, i, rank, used, own) for i, dim in enumerate(declared))
    used.update(own)
    seen = ref.sizes.get(value.name, ref.sizes.get("", ()))
    tried = seen if len(seen) == rank else ()
    sample = tuple(dim if isinstance(dim, int) else _sample(i, rank, dim, tried) for i, dim in enumerate(shape))
    spec = TensorSpec(value.name, shape, dtype, sample)
    spec = _overridden(spec, ref.shapes[value.name]) if value.name in ref.shapes else spec
    if math.prod(spec.sample) > _LARGEST:
        size = "x".join(map(str, spec.sample))
        raise ConvkitError(f"input {value.name!r} of shape {size} is too large to run", hint="give a smaller sample")
    return spec


def _dtype(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        raise ConvkitError(f"{value.name!r} is no tensor", hint="convkit runs networks of tensors only")
    name = dtype_name(value.type.tensor_type.elem_type)
    if not name:
        raise ConvkitError(
            f"{value.name!r} has an element type that convkit does not run",
            hint="convkit runs networks of numbers only",
        )
    return name


def _declared(value: onnx.ValueInfoProto) -> tuple[Dim, ...] | None:
    """Sizes, names, and "" for what is neither; None without a shape."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param for dim in tensor.shape.dim)


def _symbol(name: str, index: int, rank: int, used: set[str], own: dict[str, None]) -> str:
    """A valid name stands, also where it repeats: repeating says that the sizes are equal."""
    if name.isidentifier():
        return name
    spatial = _SPATIAL.get(rank, ())
    first = rank - len(spatial)
    wanted = "N" if index == 0 else spatial[index - first] if index >= first else f"d{index}"
    if index == 0:
        return wanted
    made, number = wanted, 1
    while made in used or made in own:
        number += 1
        made = f"{wanted}_{number}"
    own[made] = None
    return made


def _sample(index: int, rank: int, symbol: str, tried: Sequence[int]) -> int:
    if index == 0:
        return 1
    if tried:
        return tried[index]
    if rank in _SPATIAL and index == 1 and rank > min(_SPATIAL):
        return _CHANNELS
    return _DEPTH if symbol.startswith("depth") else _OTHER


def _overridden(spec: TensorSpec, declared: InputShape) -> TensorSpec:
    shape, sample, dtype = declared
    check_dtype(spec.name, spec.dtype, dtype)
    given = "x".join(map(str, shape))
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(own, int) or (size == own and want in {own, *_free(want)})
        for own, want, size in zip(spec.shape, shape, sample, strict=True)
    )
    if not fits:
        own = "x".join(map(str, spec.shape))
        raise ConvkitError(f"input {spec.name!r} has shape {own}, not {given}", hint="give sizes that fit")
    merged = tuple(own if isinstance(own, int) else want for own, want in zip(spec.shape, shape, strict=True))
    return TensorSpec(spec.name, merged, spec.dtype, tuple(sample))


def _free(dim: Dim) -> tuple[Dim, ...]:
    return () if isinstance(dim, int) else (dim,)


def output_spec(value: onnx.ValueInfoProto, example: Tensor, static: bool) -> TensorSpec:
    """The spec of an output that was `example` on the sample inputs; `static` if its shape never changes."""
    sample = tuple(example.shape)
    dtype = str(example.dtype).removeprefix("torch.")
    if static:
        return TensorSpec(value.name, sample, dtype, sample)
    declared = _declared(value) or ()
    if len(declared) != len(sample):
        declared = ("",) * len(sample)
    dims = enumerate(zip(declared, sample, strict=True))
    shape = tuple(_output_dim(dim, size, i, value.name) for i, (dim, size) in dims)
    return TensorSpec(value.name, shape, dtype, sample)


def _output_dim(declared: Dim, size: int, index: int, name: str) -> Dim:
    """A declared size stands if it is true; some writers give the size of the traced sample."""
    if declared == size:
        return declared
    if isinstance(declared, str) and declared.isidentifier():
        return declared
    return "N" if index == 0 else re.sub(r"\W", "_", f"d_{name}_{index}")
