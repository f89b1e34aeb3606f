"""The Exporter: how a Model is written for one engine. Parts in `export/engines`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import parts, target
from convkit.compress.target import Target
from convkit.export.artifact import Artifact

if TYPE_CHECKING:
    from convkit.compress.model import Model

FOLDER = "export/engines"
OPSET = 21
"""Opset where no target says another: the first with all of INT4 to INT16 and float8 in Q/DQ."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """`write(model, folder, opset)` puts the model's files into `folder`.

    `opens`: the engine, a part of `runtimes`, that must be able to open the result; None where any may be meant.
    `builds`: the package of `export.tensorrt` that makes an engine of the result.
    """

    write: Callable[[Model, Path, int], Artifact]
    opens: str | None = None
    builds: str | None = None


def find(name: str) -> tuple[Exporter, Target | None]:
    """The exporter called `name`, or that of the target called `name` (or in the YAML file `name`), with the target.

    An unknown name is the user's error and says what there is.
    """
    if name in parts.names(FOLDER):
        return parts.load(FOLDER, name), None
    found = target.load(name) if name.endswith((".yaml", ".yml")) or name in _targets() else None
    return parts.load(FOLDER, found.engine if found else _known(name)), found


def names() -> list[str]:
    """Everything `find` takes by name."""
    return sorted({*parts.names(FOLDER), *_targets()})


def _targets() -> list[str]:
    return parts.names("recipes/targets", ".yaml")


def _known(name: str) -> str:
    """Raise the user's error for `name`, with engines and targets in its hint."""
    import difflib

    from convkit.compress.errors import ConvkitError

    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(names())}"
    raise ConvkitError(f"no target is called {name!r}", hint=hint)
