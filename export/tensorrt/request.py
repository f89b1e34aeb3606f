"""What is asked of a build, and what comes of it: plain values, for both sides of the process boundary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convkit.compress.errors import ConvkitError

_SHAPE = re.compile(r"\d+(x\d+)*")
_ROLES = ("min", "opt", "max")


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes by input: the least, those that the engine is made fast for, the largest. `batch`: samples a call where a
    file leaves that free and no shape says it."""

    least: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    usual: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    most: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.least, *self.usual, *self.most)))


@dataclass(frozen=True, slots=True)
class Settings:
    """`sm`: compute capability to build for, None the device's own. `workspace`: bytes that kernels may take beside
    their tensors, at most. `version_compatible`: later versions of the package may run the engine;
    `hardware_compatible`: devices of other capabilities may. `cache`: file of kernels' measured times, read and
    written. `plugins`: files with layers of the user's, libraries or Python. `level`: how long the builder searches, 0
    to 5.
    """

    sm: int | None = None
    profile: Profile = Profile()
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    cache: str | None = None
    plugins: tuple[str, ...] = ()
    level: int | None = None


def profile(least: str | None, usual: str | None, most: str | None) -> Profile:
    """Of trtexec's words for `--minShapes`, `--optShapes` and `--maxShapes`: `input:1x3x224x224,mask:1x1`.

    What is left out is as the one that is given: a single word of `usual` fixes all shapes. Raises ConvkitError.
    """
    given = [_shapes(role, text) for role, text in zip(_ROLES, (least, usual, most), strict=True)]
    middle = given[1] or given[2] or given[0]
    found = Profile(given[0] or middle, middle, given[2] or middle)
    for name in found.inputs:
        _check(name, found)
    return found


def _shapes(role: str, text: str | None) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for part in (text or "").split(",") if text else ():
        name, _, sizes = part.strip().rpartition(":")
        if not name or not _SHAPE.fullmatch(sizes):
            raise ConvkitError(f"--{role}-shapes {part.strip()!r} is no shape", hint="write input:1x3x224x224")
        found[name] = tuple(map(int, sizes.split("x")))
    return found


def _check(name: str, found: Profile) -> None:
    """Each input has all three, of one rank, in ascending order."""
    three = [shapes.get(name) for shapes in (found.least, found.usual, found.most)]
    if any(shape is None for shape in three):
        raise ConvkitError(
            f"input {name!r} lacks a shape", hint="give it in each of --min-shapes, --opt-shapes, --max-shapes"
        )
    if len({len(shape) for shape in three if shape}) > 1:
        raise ConvkitError(f"the shapes of input {name!r} have different ranks: {_listed(three)}")
    if any(not low <= middle <= high for low, middle, high in zip(*filter(None, three), strict=True)):
        raise ConvkitError(f"the shapes of input {name!r} do not ascend: {_listed(three)}", hint="min <= opt <= max")


def _listed(shapes: Sequence[tuple[int, ...] | None]) -> str:
    return ", ".join("x".join(map(str, shape or ())) for shape in shapes)
