"""A data set in the batches that a network takes, and the network run on all of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convkit.compress.data import Data

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.calibration import Calibration
    from convkit.compress.method import Samples
    from convkit.compress.model import Model

_MOST = 16
"""Samples a batch where the network leaves that free."""
_MOST_ACTIVATION = 1 << 24
"""Elements of the largest activation of one batch: 64 MiB in float32."""
_HELD_BACK = 0.25
_PROBE = 16
"""Samples on which errors are measured and biases corrected."""


def batch_size(model: Model, data: Data) -> int:
    """Samples a batch: what the model fixes, else what keeps its largest activation modest."""
    from convkit.compress.model import with_shapes

    first = model.inputs[0].shape[0] if model.inputs[0].shape else 1
    if isinstance(first, int):
        return first
    with_shapes(model, tensors(data.batch(slice(0, 1))))
    specs = [node.meta.get("tensor") for node in model.graph.graph.nodes]
    largest = max((math.prod(spec.shape) for spec in specs if spec is not None), default=1)
    return max(1, min(_MOST, len(data), _MOST_ACTIVATION // max(largest, 1)))


def split(data: Data, seed: int) -> tuple[Data, Data]:
    """Calibration and held-back samples; too few samples to part serve as both."""
    return data.split(_HELD_BACK, seed) if len(data) > 1 else (data, data)


def tensors(data: Data) -> Samples:
    """The arrays as torch tensors."""
    import torch

    return {name: torch.from_numpy(array) for name, array in data.arrays.items()}


def calibration_of(data: Data, size: int) -> Calibration:
    """`data` in whole batches for calibration, the first of them as probe; too few samples for one come again."""
    from convkit.compress.calibration import Calibration

    batches = [tensors(batch) for batch in data.batches(size) if len(batch) == size]
    if not batches:
        batches = [tensors(data.batch([row % len(data) for row in range(size)]))]
    return Calibration(batches, batches[: max(1, _PROBE // size)])


def run(model: Model, data: Data, size: int) -> dict[str, np.ndarray]:
    """Outputs of the simulation on all samples; a short last batch is filled up and cut again."""
    import numpy as np

    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(data), size):
        rows = [min(start + i, len(data) - 1) for i in range(size)]
        parts.append({name: tensor.numpy() for name, tensor in model(tensors(data.batch(rows))).items()})
    return {name: np.concatenate([part[name] for part in parts])[: len(data)] for name in parts[0]}
