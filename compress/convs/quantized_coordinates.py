"""Quantized coordinates: points of space moved to the centres of a fine grid, before they are encoded.

Jiang et al., CQ-NIR: Coordinate Quantized Neural Implicit Representations, ICCV 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


class QuantizedCoordinates(nn.Module):
    """x […, d] within `bound` of the origin to the centre of its cell of `resolution` - 1 along each axis. A cell holds
    its lower end alone, so that `bound` itself is of the one behind the last, as in the paper.

    Its gradient is nothing: training runs on the centres themselves.
    """

    def __init__(self, resolution: int = 25600, bound: float = 2.5) -> None:
        super().__init__()
        if resolution < 2 or bound <= 0:  # noqa: PLR2004 - one cell
            raise ValueError(f"a grid of {resolution} points within {bound:g} has no cells")
        self.step, self.is_odd = 2 * bound / (resolution - 1), resolution % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        # Counted from the origin, not from the bound: half as many passes over the points, and the bound takes no
        # digits from small ones. Of an odd number of cells one lies around the origin, of an even one two meet there.
        scaled = x * (1 / self.step)
        cells = (scaled + 0.5).floor() if self.is_odd else scaled.floor() + 0.5
        return cells * self.step


def _examples() -> Iterator[Example]:
    """The paper's grid, and a coarse one."""
    yield Example(QuantizedCoordinates(), {"x": (7, 3)})
    yield Example(QuantizedCoordinates(9, 1.0), {"x": (5, 2)})


PART = Conv(
    paper="CQ-NIR: Coordinate Quantized Neural Implicit Representations (ICCV 2023)",
    tier="T1",
    layers=(QuantizedCoordinates,),
    examples=_examples,
    usual=lambda: Example(QuantizedCoordinates(), {"x": (64**3, 3)}),  # the block of points that a surface is found in
    kept={"Floor": "a step of the grid is finer than any low precision"},
)
