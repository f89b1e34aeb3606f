"""ONNX Runtime's own static quantizer with the settings that TensorRT takes: signed and symmetric on both sides."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.peers.onnxruntime_static import _prepare
from tests.bench.validation import samples

NAME = "onnxruntime symmetric"
PACKAGES = ("onnxruntime", "onnx")
FILE = "model.onnx"


def quantize(model: Path, calibration: Mapping[str, np.ndarray], output: Path) -> None:
    """Write `model`, quantized on every calibration sample (s8 activations and weights), to `output`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

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
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
