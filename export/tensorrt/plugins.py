"""Layers of the user's own: shared libraries that hold plugins, and Python files that register some.

TensorRT's parser takes an operator that it does not know for a plugin of that name, of the version and the namespace in
the node's attributes `plugin_version` ("1" where it has none) and `plugin_namespace` (""); the node's domain tells it
nothing. A plugin in Python is no part of the engine: what runs the engine must register it too.
"""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError

_PYTHON, _REGISTER = ".py", "register"


def is_python(file: str) -> bool:
    """Whether the file registers its plugins itself."""
    return Path(file).suffix == _PYTHON


def load(trt: Any, file: str) -> None:  # noqa: ANN401 - either package, neither has types
    """Make the plugins in `file` known to the package `trt`; a Python file's `register(trt)` is called for that.

    Runs the user's code: in the process of an engine, never in one that holds anything of hers. Raises ConvkitError.
    """
    registry = trt.get_plugin_registry()
    if not is_python(file):
        if registry.load_library(file) is None:
            raise ConvkitError(f"it finds no plugin in {file}")
        return
    before = len(registry.all_creators)
    try:
        register = runpy.run_path(file, run_name="convkit_plugin").get(_REGISTER)
        if register is not None:
            register(trt)
    except Exception as error:
        raise ConvkitError(f"the plugin {file} fails{_line(error, file)}: {type(error).__name__}: {error}") from error
    if register is None:
        raise ConvkitError(f"the plugin {file} has no function {_REGISTER}(trt)")
    if len(registry.all_creators) == before:
        raise ConvkitError(f"the plugin {file} registers no creator")


def _line(error: Exception, file: str) -> str:
    """Where in the file it happened: " in line 7"."""
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError):
        own.append(error.lineno)
    return f" in line {own[-1]}" if own else ""
