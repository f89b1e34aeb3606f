"""The Model: one graph for every source.

A Model holds one `torch.fx.GraphModule` in one vocabulary, that of ONNX (opset 21, ai.onnx):

* `call_module` nodes are layers: `nn.Conv{1,2,3}d`, `nn.ConvTranspose{1,2,3}d`, `nn.Linear`,
  `nn.BatchNorm{1,2,3}d`. `node.target` is the source's own dotted layer name (`layer1.0.conv1`).
* `call_function` nodes are ONNX operators: `node.target` is a function of `convkit.compress.ops` that carries the
  operator's name (`ops.Concat`), `node.args` are its inputs in ONNX order (None where an optional one is absent),
  `node.kwargs` its attributes as plain Python. `operator.getitem` picks one output of several.
* `get_attr` nodes are constants and free parameters.

Every node that makes a tensor carries `node.meta["value"]`, the tensor's name in the source and in every file
convkit writes (unique in the graph), and `node.meta["layer"]`, the source layer it belongs to ("" if none).
After `with_shapes` it also carries `node.meta["tensor"]`, a TensorSpec with the concrete sample shape.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.compress import parts
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

Dim = int | str

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
"""Element types that an input may have."""

_SHAPE = re.compile(r"(?P<name>.+):(?P<dims>[^:]+)")
_TYPED = re.compile(
    r"(?P<name>.+):(?P<dtype>(u?int|b?float|bool|complex|double|half|long|short|byte|char)\d*)", re.ASCII
)
"""Names hold colons too (TensorFlow's `input:0`), so a word is an element type only where it looks like one."""
_DIM = re.compile(r"(?P<size>\d{1,9})|(?P<symbol>[A-Za-z_]\w*?)(=(?P<sample>\d{1,9}))?", re.ASCII)
_SHAPES = "such as x:1x3x224x224, or x:Nx3xH=224xW=224 with free sizes"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, shape and element type.

    `shape` holds an int where the size is fixed and a symbol ("N", "height") where it is free; `sample` is a
    concrete shape that fits it, used to trace shapes and to time. `dtype` is numpy's name ("float32").
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    sample: tuple[int, ...] = ()


class InputShape(NamedTuple):
    """An input as a user declares it: `shape` and `sample` as `TensorSpec` has them, `dtype` "" where none is named."""

    shape: tuple[Dim, ...]
    sample: tuple[int, ...]
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a user names a model by: a file, or `package.module:function` with its arguments and weights file."""

    path: str
    weights: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, InputShape] = field(default_factory=dict)
    """What is declared of an input, by its name; parsed by `parse_shape`."""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Input name (or "" for the only one) -> shape of the data at hand, tried where the model leaves a size free."""


@dataclass(frozen=True, slots=True)
class Source:
    """One way a model file becomes a Model; a part of `compress/sources`."""

    claims: Callable[[str], bool]
    load: Callable[[ModelRef], Model]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A trained network in evaluation mode; `digest` names what it was made from (sha256)."""

    graph: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str
    digest: str

    @property
    def batch(self) -> int | None:
        """Samples a call where an input fixes that, as it was loaded: its file may leave it free. None where all are
        free; one where no input has samples.
        """
        sizes = [spec.shape[0] for spec in self.inputs if spec.shape]
        return next((size for size in sizes if isinstance(size, int)), None if sizes else 1)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run on tensors named after the inputs; returns tensors named after the outputs, no gradient kept."""
        import torch

        with torch.no_grad():
            results = self.graph(*(inputs[spec.name] for spec in self.inputs))
        return dict(zip((spec.name for spec in self.outputs), results, strict=True))

    def replace(self, **changes: Any) -> Model:  # noqa: ANN401 - the types are those of the fields
        return dataclasses.replace(self, **changes)


def parse_shape(text: str) -> tuple[str, InputShape]:
    """`x:Nx3xH=224xW=224` as ("x", (("N", 3, "H", "W"), (1, 3, 224, 224), "")): the input's name, shape and sample.

    trtexec's syntax; a word stands for a free size. A free batch has sample 1, any other needs one. The element type
    may stand between: `tokens:int64:Nx16`. Raises ConvkitError for anything else, for an element type there is not,
    and for sizes that are not positive.
    """
    match = _SHAPE.fullmatch(text)
    dims = [_DIM.fullmatch(word) for word in match["dims"].split("x")] if match else [None]
    if match is None or not all(dims):
        raise ConvkitError(f"shape {text!r} is not INPUT:SHAPE", hint=_SHAPES)
    shape: list[Dim] = []
    sample: list[int] = []
    for dim in filter(None, dims):
        shape.append(dim["symbol"] or int(dim["size"]))
        sample.append(int(dim["size"] or dim["sample"] or (0 if sample else 1)))
        if dim["symbol"] and not sample[-1] and not dim["sample"]:
            raise ConvkitError(f"shape {text!r}: the free size {dim['symbol']} needs a sample", hint=_SHAPES)
    if min(sample) < 1:
        raise ConvkitError(f"shape {text!r} is not INPUT:SHAPE with positive sizes", hint=_SHAPES)
    name, dtype = _typed(text, match["name"])
    return name, InputShape(tuple(shape), tuple(sample), dtype)


def _typed(text: str, words: str) -> tuple[str, str]:
    """`tokens:int64` as name and element type; "" where no type is named."""
    match = _TYPED.fullmatch(words)
    if match is None:
        return words, ""
    if match["dtype"] not in DTYPES:
        raise ConvkitError(
            f"shape {text!r}: there is no element type {match['dtype']!r}", hint=f"there is: {', '.join(DTYPES)}"
        )
    return match["name"], match["dtype"]


def check_dtype(name: str, own: str, given: str) -> None:
    """Raise ConvkitError where a file's input is declared with an element type (`given`, "" for none) not its own."""
    if given not in ("", own):
        raise ConvkitError(f"input {name!r} is {own}, not {given}", hint="leave the type away: the file names it")


def load(ref: ModelRef) -> Model:
    """The Model behind `ref`, by the first source that claims it."""
    for name in parts.names("compress/sources"):
        source: Source = parts.load("compress/sources", name)
        if source.claims(ref.path):
            return source.load(ref)
    raise ConvkitError(
        f"{ref.path!r} is no model that convkit loads",
        hint="give a .onnx or .pt2 file, or package.module:function with --weights",
    )


def clone(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy that shares no tensor and no node with `graph`."""
    import copy

    return copy.deepcopy(graph)


def sample_inputs(inputs: Iterable[TensorSpec], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of the sample shapes: standard normal, or integers 0 and 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for spec in inputs:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            tensors[spec.name] = torch.randn(spec.sample, generator=generator).to(dtype)
        else:
            tensors[spec.name] = torch.randint(0, 2, spec.sample, generator=generator).to(dtype)
    return tensors


def with_shapes(model: Model, inputs: Mapping[str, Tensor] | None = None) -> Model:
    """`model` with `node.meta["tensor"]` on every node, from one run on `inputs` (default: the sample shapes)."""
    import torch
    from torch import fx

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                shape = tuple(result.shape)
                dtype = str(result.dtype).removeprefix("torch.")
                n.meta["tensor"] = TensorSpec(n.meta.get("value", n.name), shape, dtype, shape)
            return result

    tensors = inputs if inputs is not None else sample_inputs(model.inputs)
    with torch.no_grad():
        Recorder(model.graph).run(*(tensors[spec.name] for spec in model.inputs))
    return model
