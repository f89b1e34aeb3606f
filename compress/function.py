"""`package.module:function`: the user's own code, and the only code of a user's that convkit runs."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def names_one(path: str) -> bool:
    """Whether `path` is written as package.module:function."""
    return _FUNCTION.fullmatch(path) is not None


def load(path: str) -> Callable[..., Any]:
    """The function that `path` names, looked up in the working folder and among the installed packages.

    Raises ConvkitError when the module or the function is not there; an error inside the module is the user's own and
    keeps its traceback.
    """
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConvkitError(f"{path}: there is no module {error.name!r}", hint="give package.module:function") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConvkitError(f"{path}: module {module_name!r} has no function {name!r}")
    found: Callable[..., Any] = function
    return found
