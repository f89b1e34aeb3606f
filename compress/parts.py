"""The folders are the registries: a part is the one value of its kind that a file holds.

`formats/int8.py` holds `PART = Format(...)`; it is named `int8` on the command line, in recipes and in
errors because its file is. Nothing is imported until it is asked for.

Packages that are installed beside convkit bring parts of their own: an entry point of the group `convkit.formats` is a
part of the folder `formats`, under its own name and in a module of its own. Names that convkit has are convkit's.
"""

import ast
import contextlib
import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from convkit.compress.errors import ConvkitError, nearest

_KINDS = {"export/ops": "kernels"}
"""Folders whose last name another folder has, too."""
_LONGEST = 100
"""Characters of a name."""
_PACKAGE = Path(__file__).resolve().parent.parent


def names(folder: str, suffix: str = ".py") -> list[str]:
    """Names of the parts in `folder` (such as `compress/formats`), sorted. A suffix like `/kernel.py` is of parts that
    are folders."""
    files = (str(file.relative_to(_PACKAGE / folder)) for file in (_PACKAGE / folder).glob(f"*{suffix}"))
    own = {file.removesuffix(suffix) for file in files if not file.startswith("_")}
    return sorted(own | (_brought(folder).keys() if suffix.endswith(".py") else set()))


def load(folder: str, name: str, file: str = "") -> Any:  # noqa: ANN401 - each folder has its own type of part
    """The part called `name` in `folder`, or what the module `file` of that part holds, where parts are folders; an
    unknown name is the user's error and says what there is."""
    inner = f"/{file}.py" if file else ".py"
    _check(folder, name, inner)
    if _is_own(folder, name, inner):
        return importlib.import_module(f"{_dotted(folder)}.{name}{'.' if file else ''}{file}").PART
    entry = _brought(folder)[name]
    with _told(name, entry):
        return importlib.import_module(f"{entry.module}.{file}").PART if file else entry.load()


def module(folder: str, name: str) -> ModuleType:
    """The module of a file that holds many things, such as operators, and no PART."""
    _check(folder, name, ".py")
    if _is_own(folder, name, ".py"):
        return importlib.import_module(f"{_dotted(folder)}.{name}")
    entry = _brought(folder)[name]
    with _told(name, entry):
        return importlib.import_module(entry.module)


@contextlib.contextmanager
def _told(name: str, entry: metadata.EntryPoint) -> Iterator[None]:
    """What a stranger's module raises, which may be anything, is told as an error of its package."""
    try:
        yield
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        reason = f"{name!r} cannot be loaded from {entry.value!r} of the package {_package(entry)}: {why}"
        raise ConvkitError(reason, hint="repair that package, or uninstall it") from error


def of_module(folder: str, module: str) -> str:
    """The part in `folder` that the Python module called `module` holds; "" where it holds none."""
    above, _, name = module.rpartition(".")
    if above == _dotted(folder):
        return "" if name.startswith("_") else name
    return next((name for name, entry in _brought(folder).items() if entry.module == module), "")


def about(folder: str, name: str, suffix: str = ".py") -> str:
    """One line on a part: the first sentence of its docstring, or the `about:` of a data file. Imports nothing."""
    text = _source(folder, name, suffix)
    if suffix.endswith(".py"):
        first = (_docstring(text) or "").split("\n\n")[0]
        return " ".join(first.split()).split(". ")[0].removesuffix(".")
    line = re.search(r"^about: *(.*)$", text, re.MULTILINE)
    return line[1].strip("\"'") if line else ""


def path(folder: str, name: str, suffix: str = ".yaml") -> Path:
    """The file of a part that is data."""
    _check(folder, name, suffix)
    return _PACKAGE / folder / f"{name}{suffix}"


def _source(folder: str, name: str, suffix: str) -> str:
    """What the file of a part says."""
    _check(folder, name, suffix)
    if _is_own(folder, name, suffix):
        return path(folder, name, suffix).read_text()
    try:
        inner = suffix.removesuffix(".py").replace("/", ".")
        found = find_spec(f"{_brought(folder)[name].module}{inner}")
    except Exception:  # noqa: BLE001 - the package above it is run, and may raise anything
        found = None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ""
    return Path(found.origin).read_text(errors="replace")


def _docstring(text: str) -> str | None:
    try:
        return ast.get_docstring(ast.parse(text))
    except (SyntaxError, ValueError):  # what is wrong with it, loading it says
        return None


@functools.cache
def _brought(folder: str) -> Mapping[str, metadata.EntryPoint]:
    """Parts that installed packages bring."""
    group = f"convkit.{_KINDS.get(folder, folder.rpartition('/')[2])}"
    found = {entry.name: entry for entry in metadata.entry_points(group=group) if _is_name(entry.name)}
    return {name: entry for name, entry in found.items() if not _is_own(folder, name, ".py")}


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else "?"


def _dotted(folder: str) -> str:
    return f"convkit.{folder.replace('/', '.')}"


def _is_name(name: str) -> bool:
    plain = len(name) <= _LONGEST and name.replace("-", "_").isidentifier()
    return plain and not name.startswith("_")


def _is_own(folder: str, name: str, suffix: str) -> bool:
    return _is_name(name) and (_PACKAGE / folder / f"{name}{suffix}").is_file()


def _check(folder: str, name: str, suffix: str) -> None:
    if _is_own(folder, name, suffix):
        return  # thousands of times in a search: the folder is not listed for them
    known = names(folder, suffix)
    if name not in known:
        hint = nearest(name, known, f"there is: {', '.join(known)}")
        raise ConvkitError(f"no {folder.rsplit('/', 1)[-1].removesuffix('s')} is called {name!r}", hint=hint)
