"""How a table is laid out in a terminal that is narrower than it: words fold, numbers never, columns come in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GAP = 2
"""Characters between two columns of a tight table."""
_EDGES, _LOOSE_GAP = 4, 3
"""The same of a table that has room: around it, and between two columns."""
_WORDS = 16
"""Characters below which a column of words is not folded: names and sentences stay readable."""


@dataclass(frozen=True, slots=True)
class Block:
    """The columns that stand side by side; `widths` in characters, empty where all has room as it is."""

    columns: tuple[int, ...]
    widths: tuple[int, ...] = ()


def blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[int], room: int) -> list[Block]:
    """Blocks of at most `room` characters, each beginning with the first column.

    `figures`: characters of the longest figure of each column, which is never broken.
    """
    every = range(len(columns))
    full = [max(len(cell) for cell in (columns[i], *(row[i] for row in rows))) for i in every]
    if sum(full) + _EDGES + _LOOSE_GAP * (len(full) - 1) <= room:
        return [Block(tuple(every))]
    tight = [max(len(word) for word in (*columns[i].split(), *(row[i] for row in rows))) for i in every]
    least = [max(figure, min(width, _WORDS)) for width, figure in zip(tight, figures, strict=True)]
    parts: list[list[int]] = [[0]]
    for index in every[1:]:
        if len(parts[-1]) > 1 and _width([least[i] for i in [*parts[-1], index]]) > room:
            parts.append([0])
        parts[-1].append(index)
    return [Block(tuple(part), _shared([tight[i] for i in part], [least[i] for i in part], room)) for part in parts]


def _shared(widths: list[int], least: Sequence[int], room: int) -> tuple[int, ...]:
    """`widths`, the widest of those that may fold made narrower until all fit."""
    widths = list(widths)
    while _width(widths) > room:
        folding = [i for i, width in enumerate(widths) if width > least[i]]
        if not folding:
            break
        widths[max(folding, key=lambda i: widths[i])] -= 1
    return tuple(widths)


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
