"""What candidates are timed on: real samples, or random ones; never zeros, on which some kernels are faster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.compress.model import TensorSpec

RANDOM, REAL = 4, 8
"""How many different inputs take turns."""

Inputs = dict[str, np.ndarray]


def shapes(
    specs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]], batch: int | None
) -> dict[str, tuple[int, ...]]:
    """A concrete shape for every input: as given, else the file's with a free first dimension taken as the batch."""
    return {spec.name: given.get(spec.name) or _shape(spec, batch) for spec in specs}


def check_shapes(specs: Sequence[TensorSpec], given: Iterable[str]) -> None:
    """Raise the user's error for a shape that is given to an input there is not."""
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            raise ConvkitError(f"there is no input {name!r} to give a shape to", hint=f"inputs: {', '.join(names)}")


def batch_size(spec: TensorSpec, given: Mapping[str, tuple[int, ...]], batch: int | None) -> int:
    """Samples a call: what is asked for, if the model allows it, else what the model fixes, else 1."""
    fixed = given.get(spec.name, spec.shape)[:1]
    if not fixed or isinstance(fixed[0], str):
        return batch or (spec.sample[0] if spec.sample else 1)
    if batch is not None and fixed[0] != batch:
        raise ConvkitError(
            f"input {spec.name!r} has a fixed batch of {fixed[0]}, not {batch}", hint="export it with a free batch"
        )
    return fixed[0]


def random(specs: Sequence[TensorSpec], shape: Mapping[str, tuple[int, ...]], seed: int) -> list[Inputs]:
    """Standard normal values; bytes for uint8; zeros and ones for other integers, which may be indices."""
    generator = np.random.default_rng(seed)
    return [{spec.name: _values(generator, spec.dtype, shape[spec.name]) for spec in specs} for _ in range(RANDOM)]


def real(data: Data, batch: int) -> list[Inputs]:
    """The first samples of `data`, `batch` at a time; a short set is repeated to fill a batch."""
    count = min(REAL, max(1, len(data) // batch))
    rows = [[(i * batch + j) % len(data) for j in range(batch)] for i in range(count)]
    return [dict(data.batch(row).arrays) for row in rows]


def fitted(specs: Sequence[TensorSpec], samples: Sequence[Inputs]) -> list[Inputs]:
    """`samples` under another candidate's names (same name, else same place) and in its types."""
    if len(specs) != len(samples[0]):
        raise ConvkitError(
            f"a candidate takes {len(specs)} inputs, the baseline {len(samples[0])}", hint="compare like with like"
        )
    names = list(samples[0])
    same = sorted(names) == sorted(spec.name for spec in specs)
    origin = {spec.name: spec.name if same else names[place] for place, spec in enumerate(specs)}
    return [
        {spec.name: np.asarray(sample[origin[spec.name]], order="C").astype(spec.dtype, copy=False) for spec in specs}
        for sample in samples
    ]


def _shape(spec: TensorSpec, batch: int | None) -> tuple[int, ...]:
    if not spec.shape:
        return ()
    known = [
        size if isinstance(size, int) else sample
        for size, sample in zip(spec.shape, spec.sample or spec.shape, strict=True)
    ]
    sizes = [batch_size(spec, {}, batch), *known[1:]]
    if not all(isinstance(size, int) for size in sizes):
        shape = "x".join(map(str, spec.shape))
        raise ConvkitError(
            f"input {spec.name!r} has free dimensions ({shape})", hint=f"give --shape {spec.name}:{_such(spec)}"
        )
    return tuple(int(size) for size in sizes)


def _such(spec: TensorSpec) -> str:
    """A shape of as many axes: its own sizes, 1 for the batch and 224 for what else is free."""
    sizes = [size if isinstance(size, int) else 224 if axis else 1 for axis, size in enumerate(spec.shape)]
    return "x".join(map(str, sizes))


def _values(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "uint8":
        return generator.integers(256, size=shape, dtype=np.uint8)
    if np.dtype(dtype).kind in "iub":
        return generator.integers(2, size=shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
