"""What a training learns from: arrays that are at hand, or batches that the user's own loader makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator, Tensor

from convkit.compress import function
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convkit.compress.model import TensorSpec

Inputs = tuple[Tensor, ...]
Batch = tuple[Inputs, Tensor | None]
"""Inputs in the network's order, each [N, …], and labels [N, …] where there are any."""


def taken(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    """Those rows of each input; one number is of all of them."""
    return tuple(array[rows] if array.ndim else array for array in inputs)


def length(inputs: Inputs) -> int:
    """How many samples there are."""
    return next((len(array) for array in inputs if array.ndim), 1)


class Samples(Protocol):
    """What there is to learn from, in batches, again in every epoch."""

    def steps(self, batch: int, least: int) -> int:
        """Batches of an epoch, of `batch` samples each; a last one of fewer than `least` is left out."""

    def epoch(self, number: int, batch: int, least: int, chance: Generator) -> Iterator[Batch]:
        """Those of the epoch `number`, in an order by `chance`."""


class Arrays:
    """Inputs [N, …] and labels [N, …] that are at hand, shuffled."""

    def __init__(self, inputs: Inputs, labels: Tensor | None = None) -> None:
        self._inputs, self._labels = inputs, labels

    def __len__(self) -> int:
        return length(self._inputs)

    def steps(self, batch: int, least: int) -> int:
        """A last batch that is left out is others' in the next epoch; the first never is."""
        whole, rest = divmod(len(self), batch)
        return whole + bool(rest and (rest >= min(least, batch) or not whole))

    def epoch(self, number: int, batch: int, least: int, chance: Generator) -> Iterator[Batch]:
        """Each sample once, but for those left out."""
        del number
        order = torch.randperm(len(self), generator=chance)
        for rows in torch.split(order, batch)[: self.steps(batch, least)]:
            yield taken(self._inputs, rows), None if self._labels is None else self._labels[rows]


class Loader:
    """What the function `path` returns: an iterable with a length that gives (inputs, labels), or inputs alone, a batch
    at a time, such as torch's DataLoader. Inputs are a tensor, a tuple in the network's order, or a mapping by name.

    Its order is by the chance of torch, numpy and Python, which the loop seeds anew for each epoch, so that what was
    killed goes on alike.
    """

    def __init__(self, path: str, specs: Sequence[TensorSpec]) -> None:
        self._path, self._specs = path, specs
        self._loader = function.call(path)
        if not hasattr(self._loader, "__iter__") or not hasattr(self._loader, "__len__"):
            raise ConvkitError(
                f"{path} returns a {type(self._loader).__name__} where batches are wanted", hint="such as a DataLoader"
            )
        if not len(self._loader):
            raise ConvkitError(f"{path} has no batches", hint="return what gives some")

    def steps(self, batch: int, least: int) -> int:
        """Its length."""
        del batch, least
        return len(self._loader)

    def epoch(self, number: int, batch: int, least: int, chance: Generator) -> Iterator[Batch]:
        """Its batches. Raises ConvkitError for one that the network does not take, and where they end early."""
        del batch, least, chance
        seen, wanted = 0, len(self._loader)
        for given in self._loader:
            if seen == wanted:
                break
            seen += 1
            yield self._checked(given, f"batch {seen} of {self._path} in epoch {number + 1}")
        if seen < wanted:
            raise ConvkitError(
                f"{self._path} ends behind {seen} of its {wanted} batches in epoch {number + 1}",
                hint="its length is what it gives",
            )

    def _checked(self, given: Any, what: str) -> Batch:  # noqa: ANN401 - whatever the user's loader gives
        arrays, labels = self._parted(given)
        if len(arrays) != len(self._specs) or not all(isinstance(one, Tensor) for one in arrays):
            raise ConvkitError(
                f"{what} is no batch of {', '.join(spec.name for spec in self._specs)}",
                hint="give (inputs, labels), or inputs alone",
            )
        for spec, one in zip(self._specs, arrays, strict=True):
            fixed = [size for size in zip(spec.shape[1:], one.shape[1:], strict=False) if isinstance(size[0], int)]
            if one.ndim != len(spec.shape) or any(own != size for own, size in fixed):
                shape = "x".join(map(str, spec.shape))
                raise ConvkitError(f"{what} has {spec.name} of {list(one.shape)}", hint=f"the network takes {shape}")
        if labels is not None and not (isinstance(labels, Tensor) and labels.ndim):
            raise ConvkitError(
                f"{what} has labels in a {type(labels).__name__}", hint="give a tensor, one label for each sample"
            )
        if labels is not None and len(labels) != length(arrays):
            raise ConvkitError(
                f"{what} has {len(labels)} labels for {length(arrays)} samples", hint="give one for each"
            )
        if labels is not None and labels.ndim == 1 and not (labels.is_floating_point() or labels.dtype == torch.bool):
            labels = labels.long()
        return tuple(one.to(getattr(torch, spec.dtype)) for spec, one in zip(self._specs, arrays, strict=True)), labels

    def _parted(self, given: Any) -> tuple[tuple[Any, ...], Tensor | None]:  # noqa: ANN401 - the same
        labels = None
        if isinstance(given, list | tuple) and len(given) == len(("inputs", "labels")) and self._is_labelled(given):
            given, labels = given
        if isinstance(given, Mapping):
            return tuple(given.get(spec.name) for spec in self._specs), labels
        return tuple(given) if isinstance(given, list | tuple) else (given,), labels

    def _is_labelled(self, given: Any) -> bool:  # noqa: ANN401 - the same
        """Whether it is inputs and labels, not two inputs."""
        return len(self._specs) != len(given) or not isinstance(given[0], Tensor)
