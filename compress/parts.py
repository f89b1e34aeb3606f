"""The folders are the registries: a part is the one value of its kind that a file holds.

`formats/int8.py` holds `PART = Format(...)`; it is named `int8` on the command line, in recipes and in
errors because its file is. Nothing is imported until it is asked for.
"""

import ast
import difflib
import importlib
import re
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError

_PACKAGE = Path(__file__).resolve().parent.parent


def names(folder: str, suffix: str = ".py") -> list[str]:
    """Names of the parts in `folder` (such as `compress/formats`), sorted."""
    files = (_PACKAGE / folder).glob(f"*{suffix}")
    return sorted(f.stem for f in files if not f.stem.startswith("_"))


def load(folder: str, name: str) -> Any:  # noqa: ANN401 - each folder has its own type of part
    """The part called `name` in `folder`; an unknown name is the user's error and says what there is."""
    _check(folder, name, ".py")
    return importlib.import_module(f"convkit.{folder.replace('/', '.')}.{name}").PART


def about(folder: str, name: str, suffix: str = ".py") -> str:
    """One line on a part: the first sentence of its docstring, or the `about:` of a data file. Imports nothing."""
    text = path(folder, name, suffix).read_text()
    if suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
        return " ".join(first.split()).split(". ")[0].removesuffix(".")
    line = re.search(r"^about: *(.*)$", text, re.MULTILINE)
    return line[1].strip("\"'") if line else ""


def path(folder: str, name: str, suffix: str = ".yaml") -> Path:
    """The file of a part that is data."""
    _check(folder, name, suffix)
    return _PACKAGE / folder / f"{name}{suffix}"


def _check(folder: str, name: str, suffix: str) -> None:
    if name.isidentifier() and not name.startswith("_") and (_PACKAGE / folder / f"{name}{suffix}").is_file():
        return  # thousands of times in a search: the folder is not listed for them
    known = names(folder, suffix)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known)}"
        raise ConvkitError(f"no {folder.rsplit('/', 1)[-1].removesuffix('s')} is called {name!r}", hint=hint)
