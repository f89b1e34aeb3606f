"""AIMET's automatic mixed precision on ONNX files: W8A8, W8A16 or 16-bit float for each group of quantizers, first
ranked by SQNR on a part of the samples, then flipped one by one until no more is lost than may be.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.validation import Validation, samples

NAME = "aimet mixed precision"
ENVIRONMENT = "aimet"
PACKAGES = ("aimet-onnx", "onnxruntime", "onnx")
FILE = "model.onnx"
VALIDATES = True
_RANKED_ON = 16
"""Of how many samples one serves the ranking, which takes most of the evaluations."""


def quantize(
    model: Path, calibration: Mapping[str, np.ndarray], output: Path, truth: np.ndarray | None = None
) -> Mapping[str, float | str]:
    """Write `model` in Q/DQ form with the formats that were chosen, and tell what the choice took."""
    import onnx
    import onnxruntime
    from aimet_onnx.common.amp.utils import AMPSearchAlgo  # type: ignore[import-not-found]
    from aimet_onnx.common.defs import CallbackFunc, QuantizationDataType
    from aimet_onnx.mixed_precision import choose_mixed_precision  # type: ignore[import-not-found]
    from aimet_onnx.quantsim import QuantizationSimModel  # type: ignore[import-not-found]

    rows = list(enumerate(samples(calibration)))
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(model), providers=providers)
    validation = Validation(np.concatenate([session.run(None, sample)[0] for _, sample in rows]), truth)
    sim = QuantizationSimModel(onnx.load(model), dummy_input=rows[0][1], providers=providers)

    def calibrate(session: Any, *_: object) -> None:
        for _, sample in rows:
            session.run(None, sample)

    def ranked(session: Any, *_: object) -> float:
        return _sqnr(validation, session, rows[::_RANKED_ON])

    def validated(session: Any, *_: object) -> float:
        return float(np.mean([validation.score(row, session.run(None, sample)[0][0]) for row, sample in rows]))

    sim.compute_encodings(calibrate)
    whole, half = QuantizationDataType.int, QuantizationDataType.float
    candidates = [((16, half), (16, half)), ((16, whole), (8, whole)), ((8, whole), (8, whole))]
    with tempfile.TemporaryDirectory() as results:
        choose_mixed_precision(
            sim,
            candidates,
            CallbackFunc(ranked),
            CallbackFunc(validated),
            validation.max_drop,
            results,
            clean_start=True,
            forward_pass_callback=CallbackFunc(calibrate),
            use_all_amp_candidates=True,
            amp_search_algo=AMPSearchAlgo.Binary,
        )
    run = validation.samples_run
    final = [validation.score(row, sim.session.run(None, sample)[0][0]) for row, sample in rows]
    validation.samples_run = run
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), output)
    return validation.cost(final)


def _sqnr(validation: Validation, session: Any, rows: Iterable[tuple[int, dict[str, np.ndarray]]]) -> float:
    """dB at the output, as AIMET's own callback has it."""
    powers = []
    for row, sample in rows:
        signal, found = validation.reference[row], validation.counted(session.run(None, sample)[0][0])
        powers.append(np.mean(signal**2) / (np.mean((signal - found) ** 2) + 1e-4))
    return float(10 * np.log10(np.mean(powers)))
