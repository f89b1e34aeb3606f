"""Training from labels, the plain loop: what a network is before it is compressed.

AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019) with one cycle of the learning rate
(Smith and Topin, Super-Convergence, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from convkit.compress.data import Data
    from convkit.compress.training.augment import Augment

LOSSES = ("cross_entropy", "mse", "l1")
_CLIP = 1.0
"""Norm of a gradient, at most: the first steps of a rate that rises may be long."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`epochs` passes over the data, `batch` samples a step, the largest learning `rate`, weight `decay`."""

    epochs: int
    batch: int = 64
    rate: float = 3e-3
    decay: float = 1e-2
    seed: int = 0


def usual_loss(labels: np.ndarray) -> str:
    """Of class indices, cross entropy; of arrays, the mean square of what is off."""
    return "cross_entropy" if labels.ndim == 1 and labels.dtype.kind in "iu" else "mse"


def train(
    module: nn.Module,
    data: Data,
    schedule: Schedule,
    loss: str,
    say: Callable[[int, float], None] | None = None,
    augment: Augment | None = None,
) -> list[float]:
    """Train `module`, whose forward takes the data's arrays by name; the mean loss of each epoch, which `say` is told.
    `augment` changes the first of the arrays, images.

    The same seed, threads and build of torch give the same weights. Raises ConvkitError for labels that `loss` does not
    take, and where the loss is no number any more.
    """
    import torch

    from convkit.compress.labels import check

    labels = _labels(data, loss)
    arrays = {name: _tensor(array) for name, array in data.arrays.items()}
    order, count = torch.Generator().manual_seed(schedule.seed), len(labels)
    left_out = count % schedule.batch == 1 < schedule.batch < count
    steps = schedule.epochs * (math.ceil(count / schedule.batch) - left_out)
    optimizer = torch.optim.AdamW(module.parameters(), schedule.rate, weight_decay=schedule.decay)
    # A cycle of one step would end where it begins, at next to nothing.
    rising = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=steps) if steps > 1 else None
    module.train()
    losses: list[float] = []
    for epoch in range(schedule.epochs):
        total, seen = 0.0, 0
        for rows in torch.split(torch.randperm(count, generator=order), schedule.batch):
            if len(rows) == 1 < schedule.batch and seen:
                continue  # norms have no variance of one sample; it is another one in the next epoch
            batch = {name: x[rows] for name, x in arrays.items()}
            if augment is not None:
                first = next(iter(batch))
                batch[first] = augment(batch[first], order)
            made = _first(module(**batch))
            if not losses and not seen and loss == "cross_entropy":
                check(labels.numpy(), made.detach().numpy(), 1)
            found = _loss(loss, made, labels[rows])
            optimizer.zero_grad()
            found.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
            optimizer.step()
            if rising is not None:
                rising.step()
            total, seen = total + float(found.detach()) * len(rows), seen + len(rows)
        losses.append(total / seen)
        if not math.isfinite(losses[-1]):
            raise ConvkitError(f"the loss of epoch {epoch + 1} is {losses[-1]}", hint="give a smaller --rate")
        if say is not None:
            say(epoch + 1, losses[-1])
    module.eval()
    return losses


def outputs(module: nn.Module, data: Data, batch: int) -> np.ndarray:
    """What the trained module makes of `data`, [N, …]."""
    import numpy as np
    import torch

    def made(part: Data) -> np.ndarray:
        return _first(module(**{name: _tensor(x) for name, x in part.arrays.items()})).numpy()

    with torch.inference_mode():
        return np.concatenate([made(part) for part in data.batches(batch)])


def _labels(data: Data, loss: str) -> Tensor:
    if data.labels is None:
        raise ConvkitError(
            "the training data has no labels", hint="give them as `labels`, --labels or {label} in --pattern"
        )
    if (loss == "cross_entropy") != (usual_loss(data.labels) == "cross_entropy"):
        shape = list(data.labels.shape)
        raise ConvkitError(
            f"labels of {shape} in {data.labels.dtype} are none for {loss}", hint=f"one of {', '.join(LOSSES)}"
        )
    labels = _tensor(data.labels)
    return labels.long() if loss == "cross_entropy" else labels.float()


def _tensor(array: np.ndarray) -> Tensor:
    """torch takes no array that runs backwards."""
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _loss(name: str, made: Tensor, labels: Tensor) -> torch.Tensor:
    from torch.nn import functional as F

    if name != "cross_entropy" and made.shape != labels.shape:
        raise ConvkitError(f"the network makes {list(made.shape)}, labels are {list(labels.shape)}")
    if name == "cross_entropy":
        return F.cross_entropy(made, labels)
    return F.mse_loss(made, labels) if name == "mse" else F.l1_loss(made, labels)


def _first(made: Tensor | tuple[Tensor, ...]) -> Tensor:
    return made[0] if isinstance(made, tuple | list) else made
