"""Quantized files that nobody here made: the small net through ONNX Runtime's own static quantizer, as Q/DQ."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.runtimes import network


def write(path: Path, batch: int | str = "N", exclude: Sequence[str] = ()) -> str:
    """The quantized net at `path`: unsigned activations, signed weights per channel; layers of `exclude` in float."""
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter([network.sample(seed=seed) for seed in range(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    source = network.write(path.with_suffix(".float.onnx"), batch=batch)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises to preprocess, which would rename layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            source,
            path,
            Samples(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(exclude),
            reduce_range=True,  # so that it is computed alike on processors without VNNI
        )
    logging.root.setLevel(level)
    return str(path)


def perturb(source: str, target: Path, layer: str, factor: float = -1.0) -> str:
    """A copy in which the weight of `layer` is another one."""
    model = onnx.load(source)
    (tensor,) = [t for t in model.graph.initializer if t.name in (f"{layer}.weight", f"{layer}.weight_quantized")]
    values = numpy_helper.to_array(tensor)
    changed = (values.astype(np.float32) * factor).round() if values.dtype.kind == "i" else values * factor
    tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
    onnx.save(model, target)
    return str(target)
