"""Torch tensors as ONNX tensors: element types and initializers."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from convkit.compress.model import TensorSpec

_ELEMENT = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}
_AS_INTEGER = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.int8, torch.float8_e5m2: torch.int8}
"""Types numpy lacks travel as integers of the same bits."""


def element_type(dtype: str | torch.dtype) -> int:
    """ONNX's number of an element type; ValueError for one that ONNX lacks."""
    name = str(dtype).removeprefix("torch.")
    if name not in _ELEMENT:
        raise ValueError(f"ONNX has no element type for {dtype}")
    return _ELEMENT[name]


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values as a numpy array; bfloat16 and float8 become ml_dtypes' types."""
    dense = tensor.detach().cpu().contiguous()
    if dense.dtype not in _AS_INTEGER:
        return dense.numpy()
    bits = dense.view(_AS_INTEGER[dense.dtype]).numpy()
    return bits.view(helper.tensor_dtype_to_np_dtype(element_type(dense.dtype)))


def initializer(name: str, tensor: torch.Tensor) -> onnx.TensorProto:
    """`tensor` as the initializer `name`."""
    return numpy_helper.from_array(to_array(tensor), name)


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """`spec` as a graph input or output; free dimensions keep their symbols."""
    return helper.make_tensor_value_info(spec.name, element_type(spec.dtype), list(spec.shape))
