"""Networks of one layer in any format, kernel and groups: also those that no plan gives, for want of a kernel."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

_TYPES = {
    "fp32": "FLOAT",
    "fp16": "FLOAT16",
    "bf16": "BFLOAT16",
    "int8": "INT8",
    "int4": "INT4",
    "fp8_e4m3": "FLOAT8E4M3FN",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """`number`: what it computes in; `between`: the type that codes are dequantized to; `held`: that of the weight's
    codes, where it is another. `kernel`: none for products."""

    operator: str
    number: str
    between: str = "fp32"
    held: str = ""
    kernel: tuple[int, ...] = (3, 3)
    inputs: int = 16
    outputs: int = 16
    group: int = 1
    stride: int = 1
    size: int = 8
    by_channel: bool = False
    """Whether each output channel of the weight has a scale of its own."""

    @property
    def on_codes(self) -> bool:
        return self.number not in ("fp32", "fp16", "bf16")

    def save(self, path: Path) -> Path:
        """The network as a file: casts, or Q/DQ pairs around constants, in front of the layer called `layer`."""
        kind = _kind(self.between if self.on_codes else self.number)
        nodes = [helper.make_node("Cast", ["x"], ["typed"], "in", to=kind)]
        held = [_tensor("bias", kind, (self.outputs,))]
        read = ["typed", "weight"]
        if self.on_codes:
            code, kept = _kind(self.number), _kind(self.held or self.number)
            nodes.append(helper.make_node("QuantizeLinear", ["typed", "scale", "zero"], ["codes"], "quantized"))
            own = ("scales", "zeros") if self.by_channel else ("scale", "nothing")
            nodes += [
                helper.make_node("DequantizeLinear", [source, *scaled], [name], name, axis=0)
                for source, name, scaled in (("codes", "read", ("scale", "zero")), ("weight", "held", own))
            ]
            held += [_tensor("scales", kind, (self.outputs,)), _tensor("zeros", kept, (self.outputs,), 0)]
            held += [
                _tensor("scale", kind, (), 0.1),
                _tensor("zero", code, (), 0),
                _tensor("nothing", kept, (), 0),
                _tensor("weight", kept, self._shape),
            ]
            read = ["read", "held"]
        else:
            held.append(_tensor("weight", kind, self._shape))
        bias = [] if self.operator == "MatMul" else ["bias"]
        nodes.append(helper.make_node(self.operator, [*read, *bias], ["made"], "layer", **self._geometry))
        nodes.append(helper.make_node("Cast", ["made"], ["y"], "out", to=TensorProto.FLOAT))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, self.inputs, *(self.size for _ in self.kernel)))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "net", [x], [y], held)
        opsets = [helper.make_opsetid("", 22)]
        onnx.save(
            onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10)), path
        )
        return path

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of the weight."""
        if self.operator in ("ConvTranspose", "MatMul"):
            return self.inputs, self.outputs // self.group, *self.kernel
        return self.outputs, self.inputs // self.group, *self.kernel

    @property
    def _geometry(self) -> dict[str, object]:
        if not self.kernel:
            return {"transB": 1} if self.operator == "Gemm" else {}
        pads = [size // 2 for size in self.kernel] * 2
        return {"group": self.group, "pads": pads, "strides": [self.stride] * len(self.kernel)}


def _kind(name: str) -> int:
    return int(TensorProto.DataType.Value(_TYPES[name]))


def _tensor(name: str, kind: int, shape: tuple[int, ...], value: float | None = None) -> onnx.TensorProto:
    """Whole numbers drawn by a seed, or `value`."""
    low, most = (1 if name == "scales" else -9), 10
    if kind == TensorProto.INT4:
        low, most = -8, 8
    drawn = np.random.default_rng(0).integers(low, most, prod(shape)).tolist()
    return helper.make_tensor(name, kind, shape, drawn if value is None else [value] * prod(shape))
