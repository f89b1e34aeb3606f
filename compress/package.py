"""`pkg://package/path`: a file or folder inside an installed Python package. The package itself is never imported."""

import importlib.util
from pathlib import Path

from convkit.compress.errors import ConvkitError

SCHEME = "pkg://"
_PIP = {"sklearn": "scikit-learn", "skimage": "scikit-image", "skfem": "scikit-fem"}


def resolve(path: str) -> str:
    """The place on disk that `path` names; a path that does not begin with pkg:// is returned as it is.

    Raises ConvkitError when the package is not installed, holds no such file, or the path leaves it.
    """
    if not path.startswith(SCHEME):
        return path
    package, _, inner = path.removeprefix(SCHEME).partition("/")
    root = _folder(package)
    if root is None:
        raise ConvkitError(f"{path}: the package {package!r} is not installed", hint=_hint(package))
    place = root / inner
    if ".." in Path(inner).parts or not place.exists():
        raise ConvkitError(f"{path}: there is no {inner!r} in the package {package!r}", hint="list the package's files")
    return str(place)


def _hint(package: str) -> str:
    """Folders of packages are not always called as pip calls the package."""
    own = _PIP.get(package, package)
    return f"pip install --no-deps {own}; the recipes' own examples: pip install --no-deps -r examples.txt"


def _folder(package: str) -> Path | None:
    # A dotted name would import the parent; only a top-level package is looked up.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
