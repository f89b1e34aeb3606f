"""Augmentation: images that are mirrored and shifted by chance, as networks for small images are usually trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from convkit.compress.errors import ConvkitError

Augment = Callable[[Tensor, Generator], Tensor]
_SHIFT = 8
"""Images are shifted by up to an eighth of their size: 4 pixels of 32 (Krizhevsky, 2009)."""


def flip(x: Tensor, chance: Generator) -> Tensor:
    """Images [N, C, H, W], every other one by chance mirrored along W."""
    mirrored = torch.rand(len(x), generator=chance) < 0.5  # noqa: PLR2004 - half of them
    return torch.where(mirrored.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


def shift(x: Tensor, chance: Generator) -> Tensor:
    """Images [N, C, H, W], each shifted along H and W; zeros come in."""
    reach = [max(1, size // _SHIFT) for size in x.shape[-2:]]
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
    tops, lefts = (torch.randint(0, 2 * r + 1, (len(x),), generator=chance).tolist() for r in reach)
    height, width = x.shape[-2:]
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded, tops, lefts, strict=True)
        ]
    )


NAMES: dict[str, Augment] = {"flip": flip, "shift": shift}


def parse(text: str | None) -> tuple[str, ...]:
    """`flip,shift`. Raises ConvkitError for a name there is none of."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    wrong = next((name for name in names if name not in NAMES), None)
    if wrong is not None:
        raise ConvkitError(f"there is no augmentation {wrong!r}", hint=f"there is: {', '.join(NAMES)}")
    return names


def check(names: tuple[str, ...], axes: Sequence[int], labels: int = 1) -> None:
    """Raise ConvkitError where inputs of so many `axes` each, and labels of so many, are not images [N, C, H, W] with
    something said of each whole: targets and other inputs would stay where the images are moved from."""
    if not names:
        return
    if axes[0] != 4:  # noqa: PLR2004 - [N, C, H, W]
        raise ConvkitError("--augment is for images [N, C, H, W]", hint="leave it out")
    if len(axes) > 1 or labels > 1:
        what = "the other inputs" if len(axes) > 1 else "labels that are images themselves"
        raise ConvkitError(f"--augment moves images, and not {what}", hint="leave it out")


def chained(names: tuple[str, ...]) -> Augment:
    """All of them, one behind the other."""

    def augment(x: Tensor, chance: Generator) -> Tensor:
        for name in names:
            x = NAMES[name](x, chance)
        return x

    return augment
