"""The Exporter: how a Model is written for one engine. Parts in `export/engines`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import parts, record, target
from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.target import Target
from convkit.export import artifact
from convkit.export.artifact import Artifact

if TYPE_CHECKING:
    import onnx

    from convkit.compress.model import Model

FOLDER = "export/engines"
OPSET = 21
"""Opset where no target says another: the first with all of INT4 to INT16 and float8 in Q/DQ."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """For `engine` ("" for any).

    `opens`: the engine, a part of `runtimes`, that must be able to open the result; None where any may be meant.
    `builds`: the package of `export.tensorrt` that makes an engine of the result. `in_types`: layers in fp16 and bf16
    are in these types, as strong typing wants them. `in_functions`: novel convolutions are nodes of their own.
    `rewrites`: what the engine runs better otherwise, each a function that edits the whole file.
    """

    engine: str = ""
    opens: str | None = None
    builds: str | None = None
    in_types: bool = False
    in_functions: bool = False
    rewrites: Sequence[Callable[[onnx.ModelProto], onnx.ModelProto]] = ()

    def proto(self, model: Model, opset: int) -> onnx.ModelProto:
        """`model` in ONNX, as the engine wants it."""
        from convkit.export.functions import with_functions
        from convkit.export.onnx import to_onnx
        from convkit.export.typed import typed

        made = to_onnx(model, opset)
        made = typed(made) if self.in_types else made
        for rewrite in self.rewrites:
            made = rewrite(made)
        return with_functions(made) if self.in_functions else made

    def bytes(self, model: Model, opset: int) -> bytes:
        """`proto`, as it stands in a file."""
        return artifact.serialized(self.proto(model, opset))

    def write(self, model: Model, folder: Path, opset: int) -> Artifact:
        """model.onnx in `folder`."""
        path = folder / record.MODEL
        return Artifact(path, artifact.write_onnx(self.proto(model, opset), path), self.engine)


def of_engine(name: str) -> Exporter:
    """That of the engine called `name`; an unknown one is the user's error."""
    found: Exporter = parts.load(FOLDER, name)
    return found


def find(name: str) -> tuple[Exporter, Target | None]:
    """The exporter called `name`, or that of the target called `name` (or in the YAML file `name`), with the target.

    An unknown name is the user's error and says what there is.
    """
    if name in parts.names(FOLDER):
        return of_engine(name), None
    found = target.load(name) if name.endswith((".yaml", ".yml")) or name in _targets() else None
    return of_engine(found.engine if found else _known(name)), found


def names() -> list[str]:
    """Everything `find` takes by name."""
    return sorted({*parts.names(FOLDER), *_targets()})


def _targets() -> list[str]:
    return parts.names("recipes/targets", ".yaml")


def _known(name: str) -> str:
    """Raise the user's error for `name`, with engines and targets in its hint."""
    hint = nearest(name, names(), f"there is: {', '.join(names())}")
    raise ConvkitError(f"no target is called {name!r}", hint=hint)
