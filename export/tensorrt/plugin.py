"""Plugins: layers of the user's own, in a shared library, or in a Python file whose `register(trt)` registers them.

TensorRT's parser takes a node that it has no operator for, and the file no body, as a plugin. Its name is the node's
operator; its version the attribute `plugin_version`, else "1", whatever the opset of the node's domain; its namespace
the attribute `plugin_namespace`, else the empty one, else the node's domain. A node with a body in the file is a
plugin's only where it carries `plugin_namespace`. The creator gets those of the node's attributes that its
`field_names` name, and no others: numbers in float32 and int32, words as characters that end in a 0.

A library travels in an engine that later versions may run. Any other engine holds none, and no engine holds a Python
file: who runs it loads or registers them there, before the engine is read.
"""

from __future__ import annotations

import re
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError

REGISTER = "register"
GIVE = "give a file that registers it, --plugin FILE, or a body in standard operators"
_SHAPE = f"write {REGISTER}(trt), which calls trt.get_plugin_registry().register_creator for each"
_RAISED = re.compile(r"Exception (?:caught in|thrown from) (\w+)\(\):? ([^\n]*)(.*?)(?=\[ERROR\]|\Z)", re.DOTALL)
_FRAME = re.compile(r"^  (.+)\((\d+)\): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A file of plugins, by its name and sha256; `in_engine`: whether the engine holds it."""

    file: str
    digest: str
    in_engine: bool


def described(files: Sequence[str], *, held: bool) -> list[Plugin]:
    """What a report says of them; `held`: the engine holds libraries."""
    return [
        Plugin(Path(file).name, record.digest_file(file), in_engine=held and not _in_python(file)) for file in files
    ]


def shipped(trt: Any, log: Any) -> None:  # noqa: ANN401 - the package has no types
    """Have the package register the plugins of its own, where it has any."""
    register_all = getattr(trt, "init_libnvinfer_plugins", None)
    if register_all is not None:
        register_all(log, "")


def libraries(files: Sequence[str]) -> list[str]:
    """Those that an engine can hold."""
    return [file for file in files if not _in_python(file)]


def register(trt: Any, files: Sequence[str]) -> None:  # noqa: ANN401 - the package has no types
    """Load each file into this process, where its code runs. Raises ConvkitError for one that registers nothing."""
    registry = trt.get_plugin_registry()
    for file in files:
        if not _in_python(file):
            if registry.load_library(file) is None:
                raise ConvkitError(f"TensorRT finds no plugin in {file}", hint="give a library that registers creators")
            continue
        before = len(registry.all_creators)
        _run(Path(file), trt)
        if len(registry.all_creators) == before:
            why = "one of the same name, version and namespace may be there already"
            raise ConvkitError(f"plugin {Path(file).name} registers no creator", hint=f"{_SHAPE}; {why}")


def raised(said: str, files: Sequence[str], *, kernels: bool = False) -> ConvkitError | None:
    """The error of a plugin in Python that raised as the builder asked it something; `said` is what the process wrote,
    `kernels` whether convkit's own were there.

    The package's bindings catch what a method raises, write it to stderr and tell TensorRT that the call failed, if
    that. It may crash of that, may take it for a no, and may build an engine without the plugin's own fields.
    """
    own = [file for file in files if _in_python(file)]
    match = _RAISED.search(said) if own or kernels else None
    if match is None:
        return None
    method, words, frames = match.groups()
    if not own:
        return ConvkitError(f"a kernel of convkit's fails as the engine is built, in {method}(): {words}")
    places = [(file, line) for file, line in _FRAME.findall(frames) if file in own]
    names = Path(places[0][0]).name if places else " or ".join(Path(file).name for file in own)
    where = f"line {places[0][1]}, " if places else ""
    return ConvkitError(f"plugin {names} fails as the engine is built, {where}in {method}(): {words}", hint=_MEND)


_MEND = "mend the plugin; TensorRT's documentation says what IPluginV3's methods give"


def _in_python(file: str) -> bool:
    return file.endswith(".py")


def _run(file: Path, trt: Any) -> None:  # noqa: ANN401 - the package has no types
    """Call the file's `register`. No compiled code of it is written or read: what runs is what is in the file."""
    module = types.ModuleType(str(file))
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look for the module of their class there
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # noqa: S102 - the user's own code, which she names
        function = getattr(module, REGISTER, None)
        if callable(function):
            function(trt)
    except (Exception, SystemExit) as error:
        line = _line(error, str(file))
        where = f" in line {line}" if line else ""
        words = next(filter(str.strip, str(error).splitlines()), "no words")
        raise ConvkitError(
            f"plugin {file.name} fails{where}: {type(error).__name__}: {words}", hint="mend the plugin"
        ) from error
    if not callable(function):
        raise ConvkitError(f"plugin {file.name} has no function {REGISTER}", hint=_SHAPE)


def _line(error: BaseException, file: str) -> int | None:
    """The last line of `file` that was at work; that which is no Python, where it is not compiled."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
