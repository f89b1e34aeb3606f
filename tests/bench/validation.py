"""The Validation that accuracy-controlled peers run again and again, and how often they do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

MAX_DROP = {"agreement": 0.015, "psnr": 0.3}
"""What may be lost of each metric: as a share of the samples, and in dB."""


@dataclass(slots=True)
class Validation:
    """`reference`: the float network's outputs [N, ...]; `truth`: what they should be, for a network of images.

    Without it the metric is the agreement of classes with the float network, else the PSNR of images in 0..1.
    """

    reference: np.ndarray
    truth: np.ndarray | None = None
    samples_run: int = 0

    @property
    def metric(self) -> str:
        return "agreement" if self.truth is None else "psnr"

    @property
    def max_drop(self) -> float:
        return MAX_DROP[self.metric]

    @property
    def evaluations(self) -> float:
        """Passes over all samples, parts of passes included."""
        return self.samples_run / len(self.reference)

    def score(self, row: int, output: np.ndarray) -> float:
        """Of one sample's output, counted as run."""
        return self._score(row, self.counted(output))

    def counted(self, output: np.ndarray) -> np.ndarray:
        """The output of a sample that was run for another measure than the metric."""
        self.samples_run += 1
        return output

    @property
    def of_float(self) -> float:
        """Of the float network itself, not counted."""
        return float(np.mean([self._score(row, output) for row, output in enumerate(self.reference)]))

    def cost(self, final: Iterable[float]) -> Mapping[str, float | str]:
        """What is told of a run; `final`: scores of the result, sample by sample."""
        return {
            "evaluations": self.evaluations,
            "metric": self.metric,
            "max_drop": self.max_drop,
            "drop": self.of_float - float(np.mean(list(final))),
        }

    def _score(self, row: int, output: np.ndarray) -> float:
        if self.truth is None:
            return float(output.argmax() == self.reference[row].argmax())
        error = np.mean((np.clip(output, 0, 1) - self.truth[row]) ** 2, dtype=np.float64)
        return float(-10 * np.log10(error))


def samples(calibration: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """One sample a batch."""
    for row in range(len(next(iter(calibration.values())))):
        yield {name: array[row : row + 1] for name, array in calibration.items()}
