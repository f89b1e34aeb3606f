"""What is wrong with the samples that a user gives, told before anything is done with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Dim, TensorSpec

if TYPE_CHECKING:
    import numpy as np

LABELS = "labels"
"""What labels are called among the arrays."""


def check_length(origin: str, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
    """Raise ConvkitError unless there are samples, as many of each; one number is of all of them."""
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if not lengths:
        raise ConvkitError(f"{origin} is empty: it has numbers for all samples, and no sample", hint="give some")
    if labels is not None:
        lengths[LABELS] = len(labels) if labels.ndim else 0
    if not all(lengths.values()):
        empty = next(name for name, length in lengths.items() if not length)
        raise ConvkitError(f"{origin} is empty: {empty!r} has no samples", hint="give samples along the first axis")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConvkitError(f"{origin} has unequal numbers of samples: {counts}")


def check_specs(origin: str, arrays: Mapping[str, np.ndarray], inputs: tuple[TensorSpec, ...]) -> None:
    """Raise ConvkitError unless the arrays are what the inputs take, a symbol one size in all of them."""
    for spec in inputs:
        _check_spec(origin, spec, arrays[spec.name])
    _check_symbols(origin, arrays, inputs)
    first = {spec.name: spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], int)}
    if len(set(first.values())) > 1:
        sizes = ", ".join(f"{name} {size}" for name, size in first.items())
        raise ConvkitError(
            f"the inputs have unlike first sizes, so no batch goes through them: {sizes}",
            hint="export the network with the batch first in every input",
        )


def _check_spec(origin: str, spec: TensorSpec, array: np.ndarray) -> None:
    """The batch axis is free: a network of a fixed batch is run that many samples at a time."""
    fits = array.ndim == len(spec.shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits or array.dtype.name != spec.dtype or not math.prod(array.shape):
        wanted = _typed(spec.dtype, ("N", *spec.shape[1:]))
        got = _typed(array.dtype.name, array.shape)
        hint = f'convert it with .astype("{spec.dtype}")' if fits else "preprocess it as the network was trained"
        raise ConvkitError(f"{origin}: input {spec.name!r} wants {wanted}, got {got}", hint=hint)


def _typed(dtype: str, shape: Sequence[Dim]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"


def _check_symbols(origin: str, arrays: Mapping[str, np.ndarray], inputs: tuple[TensorSpec, ...]) -> None:
    """One symbol is one size, in all inputs."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in inputs:
        for dim, size in zip(spec.shape[1:], arrays[spec.name].shape[1:], strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, (size, spec.name))[0] != size:
                first, other = sizes[dim]
                raise ConvkitError(f"{origin}: {dim!r} is {first} in {other!r} and {size} in {spec.name!r}")


def check_values(origin: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ConvkitError for what is no number, and where nothing varies, on which no range can be found."""
    import numpy as np

    floats = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    for name, array in floats.items():
        bad = [row for row, sample in enumerate(np.atleast_1d(array)) if not np.isfinite(sample).all()]
        if bad:
            raise ConvkitError(f"{origin}: input {name!r} has NaN or Inf in sample {bad[0]} ({len(bad)} in all)")
    # One of several inputs may well be constant (a state, a flag); where none varies no range can be found.
    sampled = {name: array for name, array in arrays.items() if array.ndim}  # one number is of all samples
    looked_at = {name: array for name, array in sampled.items() if name in floats} or sampled
    if not any(map(_varies, looked_at.values())):
        name, array = next(iter(looked_at.items()))
        how = "is constant" if len(array) == 1 else f"is the same in all {len(array)} samples"
        raise ConvkitError(
            f"{origin}: input {name!r} {how}", hint="give real samples: nothing can be calibrated on this"
        )


def _varies(array: np.ndarray) -> bool:
    import numpy as np

    if len(array) == 1:
        return array.size == 1 or bool((array != array.flat[0]).any())
    return any(not np.array_equal(array[0], sample) for sample in array[1:])


def check_labels(origin: str, labels: np.ndarray) -> None:
    """Raise ConvkitError for labels that are no classes and no targets."""
    import numpy as np

    if labels.dtype.kind not in "biuf":
        raise ConvkitError(f"{origin}: labels are {labels.dtype.name}", hint="give class indices or target arrays")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ConvkitError(f"{origin}: labels have NaN or Inf")
    if labels.dtype.kind == "i" and labels.ndim == 1 and labels.min() < 0:
        raise ConvkitError(f"{origin}: label {labels.min()} of sample {labels.argmin()}", hint="classes count from 0")
