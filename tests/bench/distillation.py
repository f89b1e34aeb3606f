"""Quantized networks that learn from what they make in float, without labels: `convkit train --plan`, as a person calls
it, on photos, several times each, and on images of CIFAR-10's training part.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench import cifar, product
from tests.bench.cases import Case
from tests.bench.product import Command

EPOCHS, BATCH = 3, 16


@dataclass(frozen=True, slots=True)
class Learnt:
    """From what: the photos to calibrate on, each so many times in an epoch, and so many images of CIFAR-10."""

    repeated: int
    others: int


def trained(case: Case, plan: Path, target: str, learnt: Learnt, output: Path) -> Command:
    """`output` / "trained" has it then, its layers in the formats of `plan`. Raises product.FailedError."""
    ((feed, photos),) = case.calibration.items()
    output.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([*[photos] * learnt.repeated, *cifar.unscored(learnt.others, photos.shape[-1])])
    np.savez(output / "learnt.npz", **{feed: samples})
    how = ["--epochs", str(EPOCHS), "--batch", str(BATCH), "--augment", "flip", "--data", str(output / "learnt.npz")]
    words = ["train", str(case.model), "--plan", str(plan), "--target", target]
    return product.run([*words, *how, "-o", str(output / "trained")])
