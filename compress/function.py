"""`package.module:function`: the user's own code, and the only code of a user's that convkit runs."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError

_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_FUNCTION = re.compile(f"{_DOTTED}:{_DOTTED}")


def names_one(path: str) -> bool:
    """Whether `path` is written as package.module:function (or module:Class.method)."""
    return _FUNCTION.fullmatch(path) is not None


def load(path: str) -> Callable[..., Any]:
    """The function that `path` names, looked up in the working folder and among the installed packages.

    Raises ConvkitError when the module cannot be imported or has no such function.
    """
    module, _, attributes = path.partition(":")
    found = _import(module, path)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            near = sorted(key for key in vars(found) if not key.startswith("_") and callable(getattr(found, key)))
            hint = f"there is: {', '.join(near[:8])}" if near else "check the name"
            raise ConvkitError(f"{path}: {module} has no {attribute!r}", hint=hint)
        found = getattr(found, attribute)
    if not callable(found):
        raise ConvkitError(f"{path} is a {type(found).__name__}, not a function", hint="give the name of a function")
    function: Callable[..., Any] = found
    return function


def call(path: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the user's function takes and returns
    """What the function returns; what it raises becomes a ConvkitError with its file and line.

    Its prints go to stderr: stdout carries convkit's result only.
    """
    function = load(path)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return function(*args, **named)
    except Exception as error:
        raise ConvkitError(f"{path} raised {_first_line(error)}{_place(error)}", hint="check its arguments") from error


def _import(module: str, path: str) -> Any:  # noqa: ANN401 - a module's attributes are anything
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            hint = "install its package, or run convkit in the folder that holds it"
            raise ConvkitError(f"{path}: there is no module {error.name!r}", hint=hint) from error
        raise ConvkitError(f"{path}: importing {module} needs {error.name!r}", hint="install it") from error
    except Exception as error:
        raise ConvkitError(f"{path}: importing {module} raised {_first_line(error)}", hint="fix the module") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
