"""Training from labels: what a network is before it is compressed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from convkit.compress import function
from convkit.compress.errors import ConvkitError
from convkit.compress.labels import check

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from convkit.compress.data import Data
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.cycle import Cycle
    from convkit.compress.training.loop import Schedule
    from convkit.compress.training.samples import Inputs

NONE = -100
"""The label of what has no class, as torch has it."""
LOSSES = ("cross_entropy", "mse", "l1")
Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""Of the first output [N, …] and the labels [N, …] of its samples, a number."""


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
    kept: Checkpoint | None = None,
) -> list[float]:
    """Train `module`, whose forward takes the data's arrays by name; the mean loss of each epoch, which `say` is told.
    `augment` changes the first of the arrays, images. Each epoch is `kept`, and what was kept gone on with.

    Raises ConvkitError for labels that `loss` does not take, and where the loss is no number any more.
    """
    from convkit.compress.training import loop
    from convkit.compress.training.cycle import Cycle
    from convkit.compress.training.samples import Arrays

    samples = Arrays(tuple(_tensor(array) for array in data.arrays.values()), labels(data, loss))
    total = schedule.epochs * samples.steps(schedule.batch, _LEAST)
    learner = Supervised(module, tuple(data.arrays), loss, Cycle([([*module.parameters()], 1, 1)], schedule, total))
    module.train()
    state = loop.State()
    for state in loop.keeping(learner, samples, schedule, kept, least=_LEAST, augment=augment):
        if say is not None:
            say(state.epoch, state.losses[-1])
    module.eval()
    return state.losses


_LEAST = 2
"""Samples of a step, where more than one is asked for: norms have no variance of one."""


class Supervised:
    """A module that learns from labels, its inputs given by `names`."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], loss: str, updates: Cycle) -> None:
        self.updates, self._module, self._names, self._loss = updates, module, names, named(loss)

    def weights(self) -> Mapping[str, Tensor]:
        """Parameters and statistics of norms."""
        return self._module.state_dict(keep_vars=True)

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """By the gradient of the loss of the first output."""
        del at
        assert labels is not None  # there are some of all samples  # noqa: S101
        made = first(self._module(**dict(zip(self._names, inputs, strict=True))))
        return self.updates.update([self._loss(made, labels)])

    def judge(self) -> None:
        """Nothing is held back."""

    def broken(self, inputs: Inputs) -> str:
        """Nothing is known but that it is."""
        del inputs
        return ""


def outputs(module: nn.Module, data: Data, batch: int) -> np.ndarray:
    """What the trained module makes of `data`, [N, …]."""
    import numpy as np
    import torch

    def made(part: Data) -> np.ndarray:
        return first(module(**{name: _tensor(x) for name, x in part.arrays.items()})).numpy()

    with torch.inference_mode():
        return np.concatenate([made(part) for part in data.batches(batch)])


def ran(module: nn.Module, data: Data, name: str) -> Tensor:
    """What `module`, which `name` builds, makes of `data`. Raises ConvkitError where it does not take that, or makes
    what is no tensor."""
    import torch

    given = {key: _tensor(x) for key, x in data.arrays.items()}
    try:
        with torch.no_grad():
            made = module.eval()(**given)
    except RuntimeError as error:
        shapes = ", ".join(f"{key}:{'x'.join(map(str, x.shape))}" for key, x in given.items())
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConvkitError(
            f"{name} does not run on {shapes}: {reason}", hint="check the shape, or fix the model"
        ) from error
    found = next(iter(made), None) if isinstance(made, tuple | list) else made
    if not isinstance(found, torch.Tensor):
        raise ConvkitError(
            f"{name} makes a {type(made).__name__}", hint="wrap it so that it returns a tensor, or a tuple of tensors"
        )
    return found


def labels(data: Data, loss: str) -> Tensor:
    """Those of `data`, as `loss` takes them. Raises ConvkitError where it takes none such."""
    if data.labels is None:
        raise ConvkitError(
            "the training data has no labels", hint="give them as `labels`, --labels or {label} in --pattern"
        )
    if loss in LOSSES and (loss == "cross_entropy") != (usual_loss(data.labels) == "cross_entropy"):
        shape = list(data.labels.shape)
        raise ConvkitError(
            f"labels of {shape} in {data.labels.dtype} are none for {loss}", hint=f"one of {', '.join(LOSSES)}"
        )
    found = _tensor(data.labels)
    return found.long() if usual_loss(data.labels) == "cross_entropy" else found.float()


def _tensor(array: np.ndarray) -> Tensor:
    """torch takes no array that runs backwards."""
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def named(loss: str) -> Loss:
    """The loss of that name, or the user's own function. Raises ConvkitError for a function that there is not."""
    if not function.names_one(loss):
        return functools.partial(_lost, loss)
    function.load(loss)

    def found(made: Tensor, labels: Tensor) -> Tensor:
        value = function.call(loss, made, labels)
        if getattr(value, "shape", None) != () or (not value.requires_grad and made.requires_grad):
            raise ConvkitError(f"{loss} returns no tensor that is one number", hint="such as that of `.mean()`")
        one: Tensor = value
        return one

    return found


def _lost(name: str, made: Tensor, labels: Tensor) -> Tensor:
    from torch.nn import functional as F

    if name != "cross_entropy" and made.shape != labels.shape:
        raise ConvkitError(f"the network makes {list(made.shape)}, labels are {list(labels.shape)}")
    if name == "cross_entropy":
        check(labels.numpy(), made.detach().numpy(), 1)
        wrong = labels[(labels < 0) & (labels != NONE)]
        if len(wrong):
            raise ConvkitError(f"a label is class {int(wrong[0])}", hint=f"number classes from 0; {NONE} is none")
        return F.cross_entropy(made, labels.long(), ignore_index=NONE)
    return F.mse_loss(made, labels) if name == "mse" else F.l1_loss(made, labels)


def first(made: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The output that is learnt and scored."""
    return made[0] if isinstance(made, tuple | list) else made
