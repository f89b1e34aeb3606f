"""NNCF's post-training quantization of the OpenVINO model: the default preset, fast bias correction, every sample."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

NAME = "nncf"
PACKAGES = ("nncf", "openvino")
FILE = "model.xml"


def quantize(model: Path, calibration: Mapping[str, np.ndarray], output: Path) -> None:
    """Write `model`, quantized on every calibration sample, to `output` and its weights beside it."""
    import nncf  # type: ignore[import-untyped]
    import openvino

    count = len(next(iter(calibration.values())))
    samples = [{name: array[row : row + 1] for name, array in calibration.items()} for row in range(count)]
    quantized = nncf.quantize(openvino.Core().read_model(model), nncf.Dataset(samples), subset_size=count)
    openvino.save_model(quantized, output, compress_to_fp16=False)
