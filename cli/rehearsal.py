"""What a dry run looks into: whether each step's model and data are there, and go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convkit.cli import options
from convkit.cli.step import REFERENCE, Step, parse, strings, words
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from pathlib import Path

    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef, TensorSpec


def check(step: Step, folders: Mapping[str, Path], output: Path) -> None:
    """Raise ConvkitError for what the step would refuse; sample values are not read, nor what earlier steps make."""
    given = parse(step.command, words(step, folders, output)).params
    try:
        _check_data(step, given)
    except ConvkitError as error:
        raise type(error)(f"step {step.name}: {error.message}", hint=error.hint) from error


def _check_data(step: Step, given: Mapping[str, Any]) -> None:
    from convkit.compress import data

    key = next((name for name in ("model", "reference") if name in given and "shape" in given), None)
    model = None if key is None or _made(step, key) else _model(given, key)
    ref = options.refine(given.get("data"), {name: given.get(name) for name in options.DATA_FIELDS})
    if ref is not None and not _made(step, "data"):
        data.check(ref, (lambda: _inputs(model, ref)) if model else None)


def _made(step: Step, key: str) -> bool:
    """Whether an earlier step makes it."""
    return any(REFERENCE.search(text) for text in strings(step.settings.get(key)))


def _model(given: Mapping[str, Any], key: str) -> ModelRef:
    """The step's ModelRef; where it is a function, that must be there."""
    from convkit.compress import function

    path = given[key]
    if not function.names_one(path):
        return options.model_ref(path, None, {}, given["shape"])
    ref = options.model_ref(path, given["weights"], given["arg"], given["shape"])
    function.load(path)
    return ref


def _inputs(model: ModelRef, ref: DataRef) -> tuple[TensorSpec, ...]:
    from convkit.compress import data
    from convkit.compress import model as models

    return models.load(replace(model, sizes=data.shapes(ref))).inputs
