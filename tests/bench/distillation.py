"""Quantized networks that learn from what they make in float, without labels: `convkit train --plan`, as a person calls
it, on photos, several times each, and on images of CIFAR-10's training part.
"""

from pathlib import Path

import numpy as np

from tests.bench import cifar, product
from tests.bench.cases import Case

EPOCHS, BATCH = 3, 16


def trained(case: Case, plan: Path, target: str, output: Path, *, repeated: int, others: int) -> Path:
    """Its file: of the layers' formats in `plan`, learnt from the photos to calibrate on, each `repeated` times, and
    from so many `others`. Raises product.FailedError.
    """
    ((feed, photos),) = case.calibration.items()
    output.mkdir(parents=True, exist_ok=True)
    learnt = np.concatenate([*[photos] * repeated, *cifar.unscored(others, photos.shape[-1])])
    np.savez(output / "learnt.npz", **{feed: learnt})
    how = ["--epochs", str(EPOCHS), "--batch", str(BATCH), "--augment", "flip", "--data", str(output / "learnt.npz")]
    product.run(["train", str(case.model), "--plan", str(plan), "--target", target, *how, "-o", str(output / "trained")])
    return output / "trained" / "model.onnx"
