"""Digests of code: another version of it may give another result."""

from __future__ import annotations

import functools
from pathlib import Path

from convkit.compress import record

_FOLDERS = ("cli", "compress", "export", "recipes", "runtimes")


def tree(folder: Path, pattern: str) -> str:
    """Digest of the files below `folder` whose names match, with their places."""
    files = sorted(file for file in folder.rglob(pattern) if file.is_file() and "__pycache__" not in file.parts)
    return record.digest_json([[file.relative_to(folder).as_posix(), record.digest_file(file)] for file in files])


@functools.cache
def digest() -> str:
    """That of convkit's own code and data."""
    links = (Path(__file__).parent.parent / name for name in _FOLDERS)
    return record.digest_json([tree(link, pattern) for link in links for pattern in ("*.py", "*.yaml")])
