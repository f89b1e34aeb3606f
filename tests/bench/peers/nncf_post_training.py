"""NNCF's post-training quantization of the OpenVINO model: the default preset, fast bias correction, every sample."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.validation import samples

NAME = "nncf"
ENVIRONMENT = "nncf"
PACKAGES = ("nncf", "openvino")
FILE = "model.xml"


def quantize(model: Path, calibration: Mapping[str, np.ndarray], output: Path) -> None:
    """Write `model`, quantized on every calibration sample, to `output` and its weights beside it."""
    import nncf  # type: ignore[import-untyped]
    import openvino

    rows = list(samples(calibration))
    quantized = nncf.quantize(openvino.Core().read_model(model), nncf.Dataset(rows), subset_size=len(rows))
    openvino.save_model(quantized, output, compress_to_fp16=False)
