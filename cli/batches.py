"""A data set in the batches that a network takes, and the network run on all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress import arrays
from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from convkit.compress.calibration import Calibration
    from convkit.compress.method import Samples
    from convkit.compress.model import Model

_MOST = 16
"""Samples a batch where the network leaves that free."""
_MOST_ACTIVATION = 1 << 24
"""Elements of the largest activation of one batch: 64 MiB in float32."""
_HELD_BACK = 0.25
_PROBE, _PROBE_MACS = 16, 64e9
"""Samples on which errors are measured and biases corrected, dozens of times; fewer where a sample takes long, for a
large image says as much as many small ones."""


@dataclass(frozen=True, slots=True)
class Batching:
    """Samples a batch, and how many serve as probe."""

    size: int
    probe: int


def check(model: Model, size: int, what: str) -> None:
    """Refuse so many samples at a time, which `what` asked for, where the network fixes another number."""
    if model.batch not in (None, size):
        raise ConvkitError(
            f"{model.name} takes {model.batch} samples at a time, not {what} {size}",
            hint=f"give {what} {model.batch}, or a network whose batch is free",
        )


def batching(model: Model, data: Data) -> Batching:
    """What the model fixes, else batches that keep its largest activation modest; a probe that keeps its work so."""
    from convkit.compress import analysis

    size = model.batch
    found = analysis.analyse(model, tensors(data.filled(size or 1)))
    largest = max((layer.activations for layer in found.layers), default=1)
    affordable = _PROBE_MACS / max(1.0, found.total()["macs"] / (size or 1))
    probe = max(1, min(_PROBE, int(affordable)))
    return Batching(size or max(1, min(_MOST, len(data), probe, _MOST_ACTIVATION // max(largest, 1))), probe)


@contextlib.contextmanager
def indices_in_range(model: Model) -> Iterator[None]:
    """What torch says of an index that is too large, as the user's error, where inputs are integers that pick."""
    with indices([spec.name for spec in model.inputs if spec.dtype.startswith(("int", "uint"))], model.name):
        yield


@contextlib.contextmanager
def indices(integers: Sequence[str], name: str = "the network") -> Iterator[None]:
    """The same for a network that is called `name`, whose inputs `integers` pick."""
    try:
        yield
    except IndexError as error:
        if not integers:
            raise
        reason = str(error).splitlines()[0]
        hint = f"check the values of {', '.join(integers)}"
        raise ConvkitError(f"the data holds an index that {name} has no entry for: {reason}", hint=hint) from error


def split(data: Data, seed: int) -> tuple[Data, Data]:
    """Calibration and held-back samples; too few samples to part serve as both."""
    return data.split(_HELD_BACK, seed) if len(data) > 1 else (data, data)


def tensors(data: Data) -> Samples:
    """The arrays as torch tensors."""
    import torch

    return {name: torch.from_numpy(array) for name, array in data.arrays.items()}


def calibration_of(data: Data, by: Batching, *, labels: bool = False) -> Calibration:
    """`data` in whole batches for calibration, the first of them as probe; too few samples for one come again.

    `labels`: with those of the probe.
    """
    from convkit.compress.calibration import Calibration

    batches = [batch for batch in data.batches(by.size) if len(batch) == by.size]
    batches = batches or [data.filled(by.size)]
    probe = batches[: max(1, by.probe // by.size)]
    known = [_labels(batch.labels) for batch in probe if labels and batch.labels is not None]
    inputs = [tensors(batch) for batch in batches]
    return Calibration(inputs, inputs[: len(probe)], known or None)


def _labels(found: np.ndarray) -> Tensor:
    """As torch has them: whole numbers of one type."""
    import torch

    return torch.from_numpy(found.astype("int64") if found.dtype.kind in "iu" else found)


def run(model: Model, data: Data, size: int) -> dict[str, np.ndarray]:
    """Outputs of the simulation on all samples; a short last batch is filled up and cut again.

    Raises ConvkitError where the network takes a sample, but not so many at once.
    """
    import numpy as np

    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(data), size):
        batch = data.batch([min(start + i, len(data) - 1) for i in range(size)])
        try:
            made = model(tensors(batch))
        except RuntimeError as error:
            raise _alone(model, batch, error) from error
        parts.append({name: arrays.array(tensor) for name, tensor in made.items()})
    return {name: np.concatenate([part[name] for part in parts])[: len(data)] for name in parts[0]}


def _alone(model: Model, batch: Data, error: RuntimeError) -> Exception:
    """What `error` is of a network whose batch is free: the user's where a sample alone goes through it."""
    if model.batch is not None or len(batch) == 1:
        return error
    model(tensors(batch.batch([0])))
    name, sample = model.inputs[0].name, "x".join(map(str, (1, *next(iter(batch.arrays.values())).shape[1:])))
    return ConvkitError(
        f"{model.name} takes one sample, but not {len(batch)} at once: {str(error).splitlines()[0]}",
        hint=f"give --shape {name}:{sample}, or export it with a free batch",
    )
