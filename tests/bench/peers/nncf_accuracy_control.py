"""NNCF's quantization with accuracy control: layers go back to float, the worst first, until no more is lost than may
be. Every sample calibrates and validates, as its documentation allows; all else is its default.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.validation import Validation, samples

NAME = "nncf accuracy control"
ENVIRONMENT = "nncf"
PACKAGES = ("nncf", "openvino")
FILE = "model.xml"
VALIDATES = RUNS = True


def quantize(
    model: Path,
    calibration: Mapping[str, np.ndarray],
    output: Path,
    truth: np.ndarray | None = None,
    *,
    simulated: bool = False,
) -> Mapping[str, float | str]:
    """Write `model` with as many layers quantized as the validation allows, and tell what that took.

    `simulated`: what is validated computes codes in float, for a CPU whose own INT8 kernels saturate.
    """
    import nncf  # type: ignore[import-untyped]
    import openvino

    if simulated:
        openvino.compile_model = _simulating(openvino.compile_model)
    core, rows = openvino.Core(), list(enumerate(samples(calibration)))
    network = core.read_model(model)
    compiled = core.compile_model(network, "CPU")
    validation = Validation(np.concatenate([compiled(sample)[0] for _, sample in rows]), truth)

    def validate(candidate: Any, items: Iterable[tuple[int, dict[str, np.ndarray]]]) -> tuple[float, list[float]]:
        scores = [validation.score(row, candidate(sample)[0][0]) for row, sample in items]
        return float(np.mean(scores)), scores

    quantized = nncf.quantize_with_accuracy_control(
        network,
        nncf.Dataset(rows, lambda row: row[1]),
        nncf.Dataset(rows, lambda row: row[1]),
        validate,
        max_drop=validation.max_drop,
        subset_size=len(rows),
    )
    openvino.save_model(quantized, output, compress_to_fp16=False)
    run = validation.samples_run
    _, final = validate(openvino.compile_model(quantized, "CPU"), rows)
    validation.samples_run = run
    return validation.cost(final)


def _simulating(compile_model: Callable[..., Any]) -> Callable[..., Any]:
    """NNCF gives no way to say how it compiles what it validates."""

    def compiled(model: Any, device_name: str, config: Mapping[str, Any] | None = None) -> Any:
        return compile_model(model, device_name=device_name, config={**(config or {}), "LP_TRANSFORMS_MODE": False})

    return compiled
