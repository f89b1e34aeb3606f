"""What an engine is made of, read from the lines that its builder logs of every layer when it is told to be verbose.

A line is a list of `Key: value` pairs; tensors are `{ Name: …, Dimensions: […], Datatype: … }` in lists. TensorRT for
RTX lists what a layer holds as `Constants`, TensorRT has `Weights: {"Type": …, "Count": …}`, and puts types in words
("Channel major FP16 format …") before version 10.7. Metadata names the nodes of the ONNX file that a layer computes,
with a separator of its own between them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convkit.compress.errors import ConvkitError

HEADING, _END = "Layers:", ("Bindings:", "I/O Tensors:")
_LINE = re.compile(r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), (?P<rest>.*)$")
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<sizes>[-\d,]*)\].*?Datatype: (?P<dtype>[^}]*)"
)
_HELD = re.compile(r'(?P<name>Weights|Bias): \{"Type": "(?P<dtype>\w+)", "Count": (?P<count>\d+)\}')
_BETWEEN = re.compile("[\x1e\x1f]")
_METADATA = re.compile(r"\[ONNX Layer: (.*?)\](?:__\w+)?")
"""Names hold brackets too; behind the last may stand what the engine made of the node, "__gemm_from_conv1x1"."""
_LISTS = ("Inputs", "Constants", "Outputs")
_DTYPES = {
    "Float": "fp32",
    "FP32": "fp32",
    "Half": "fp16",
    "FP16": "fp16",
    "BFloat16": "bf16",
    "BF16": "bf16",
    "Int8": "int8",
    "INT8": "int8",
    "FP8": "fp8_e4m3",
    "E4M3": "fp8_e4m3",
    "Int4": "int4",
    "INT4": "int4",
    "FP4": "fp4_e2m1",
}
"""The engine's names of types that convkit has formats for."""
_OTHERS = ("int32", "int64", "uint8", "bool")
"""Those that it has none for. Engines of free sizes do not tell some types: N/A."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One that a layer reads, holds or makes; `dtype` is a format of convkit where there is one for it, "" where it is
    not told."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer of an engine, and `nodes`, the names of those of the ONNX file that it computes."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]


def layers(log: Sequence[str]) -> list[EngineLayer]:
    """The layers that stand in the messages of a build; raises ConvkitError where none do."""
    found = [layer for message in log for layer in _of(message)]
    if not found:
        raise ConvkitError(
            "the engine's builder told nothing of its layers", hint="this version is not known to convkit"
        )
    return found


def _of(message: str) -> Iterator[EngineLayer]:
    """Those of one message: the whole list is logged as one."""
    _, heading, text = message.partition(HEADING)
    if heading:
        for line in text.split("\n"):  # `splitlines` parts at the separator between names, too
            if line.strip().startswith(_END):
                return
            match = _LINE.match(line)
            if match:
                yield _layer(match)


def _layer(match: re.Match[str]) -> EngineLayer:
    rest = match["rest"]
    inputs, constants, outputs = (tuple(map(_tensor, _TENSOR.finditer(_list(rest, key)))) for key in _LISTS)
    constants += tuple(Tensor(one["name"], (int(one["count"]),), _dtype(one["dtype"])) for one in _HELD.finditer(rest))
    _, _, metadata = rest.partition("Metadata: ")
    # "conv | then (then_branch) | choice (If)": of a node in a branch, where that is.
    nodes = (_METADATA.fullmatch(part.strip(" ")) for part in _BETWEEN.split(metadata))
    own = tuple(dict.fromkeys(node[1].partition(" | ")[0] for node in nodes if node))
    return EngineLayer(match["name"], match["kind"], inputs, constants, outputs, own)


def _list(text: str, key: str) -> str:
    """What stands in the brackets behind `key`, which may hold others."""
    start = text.find(f"{key}: [")
    depth = 0
    for place in range(start, len(text)) if start >= 0 else ():
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if depth == 0 and text[place] == "]":
            return text[start:place]
    return ""


def _tensor(match: re.Match[str]) -> Tensor:
    sizes = tuple(int(size) for size in match["sizes"].split(",") if size)
    return Tensor(match["name"], sizes, _dtype(match["dtype"]))


def _dtype(text: str) -> str:
    """The format that a type in the engine's words is."""
    words = re.findall(r"\w+", text)
    others = (word.lower() for word in words if word.lower() in _OTHERS)
    return next((_DTYPES[word] for word in words if word in _DTYPES), "") or next(others, "")
