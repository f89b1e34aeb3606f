"""ONNX Runtime's own static quantizer, as its documentation advises for x86-64: prepared, QDQ, per channel, MinMax."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.validation import samples

NAME = "onnxruntime static"
PACKAGES = ("onnxruntime", "onnx")
FILE = "model.onnx"


def quantize(model: Path, calibration: Mapping[str, np.ndarray], output: Path) -> None:
    """Write `model`, quantized on every calibration sample (u8 activations, s8 weights), to `output`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = samples(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._samples, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        _prepare(model, prepared)
        quantize_static(
            prepared,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def _prepare(model: Path, prepared: Path) -> None:
    """Per-channel scales exist from opset 13 on, so an older file is raised; then the quantizer's own preparation."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization import quant_pre_process

    source = onnx.load(model)
    if next(entry.version for entry in source.opset_import if not entry.domain) < _PER_CHANNEL:
        source = version_converter.convert_version(source, _RAISED)
    quant_pre_process(source, prepared)


_PER_CHANNEL, _RAISED = 13, 18
