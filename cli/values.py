"""What values of options may be: words, finite numbers, names of parts."""

from __future__ import annotations

import math
import re

import click
from click.shell_completion import CompletionItem

from convkit.compress import parts, units


class Word(click.ParamType[str]):
    """Text that is not empty: an empty word is a variable that was not set, and does not mean what no word means."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word as it is."""
        if not value.strip():
            self.fail("it is empty; give a value", param, ctx)
        return value


WORD = Word()
SEEDS = click.IntRange(0, 2**32 - 1)
THREADS = click.IntRange(1, 1024)
"""More than any machine has cores; OpenMP dies of many more without a word."""


def finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """A callback that refuses what no range does: NaN, which is on neither side of any limit, and infinity."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", context, option)
    return value


class Size(click.ParamType[int]):
    """Bytes, with their unit: 15MB."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole bytes, at least one."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(units.NUMBER, value.strip())
        known = {unit.casefold(): size for unit, size in units.BYTES.items()}
        size = float(found["sign"] + found["number"]) * known.get((found["unit"] or "").casefold(), 0) if found else 0
        if not 1 <= size < math.inf:
            self.fail(f"{value!r} is no size; write 15MB or 1GiB", param, ctx)
        return int(size)


class Share(click.ParamType[float]):
    """A part of a whole at most: <=15%."""

    name = "share"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Above nothing, and at most one."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(rf"\s*(<=)?\s*{units.NUMBER}\s*", value)
        share = float(found["sign"] + found["number"]) / 100 if found and found["unit"] == "%" else math.nan
        if not 0 < share <= 1:
            self.fail(f'{value!r} is no share; write "<=15%"', param, ctx)
        return share


class Part(click.ParamType[str]):
    """A part's name, with the shell's completion from its folder. The command itself loads the part."""

    name = "name"

    def __init__(self, folder: str, suffix: str = ".py") -> None:
        self._folder, self._suffix = folder, suffix

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is, which is not empty."""
        return WORD.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names in the folder that begin with what was typed."""
        known = parts.names(self._folder, self._suffix)
        return [
            CompletionItem(name, help=parts.about(self._folder, name, self._suffix))
            for name in known
            if name.startswith(incomplete)
        ]
