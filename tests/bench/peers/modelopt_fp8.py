"""NVIDIA Model Optimizer's FP8 quantization of ONNX files, calibrated on the CPU: its default placement and
calibration; what stays in float stays in fp32. A file of its own as every peer, for what it made is kept by its digest.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

NAME = "model optimizer fp8"
ENVIRONMENT = "modelopt"
PACKAGES = ("nvidia-modelopt", "onnxruntime", "onnx")
FILE = "model.onnx"


def quantize(model: Path, calibration: Mapping[str, np.ndarray], output: Path) -> None:
    """Write `model`, quantized on every calibration sample (E4M3), to `output`."""
    from modelopt.onnx.quantization import quantize as modelopt  # type: ignore[import-not-found]

    shapes = ",".join(f"{name}:{'x'.join(map(str, (1, *array.shape[1:])))}" for name, array in calibration.items())
    modelopt(
        str(model),
        quantize_mode="fp8",
        calibration_data=dict(calibration),
        calibration_shapes=shapes,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
    )
