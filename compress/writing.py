"""Why something cannot be written, in one line."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from convkit.compress.errors import ConvkitError

_WRITING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
}
_PLACE = {
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOTDIR: "a part of its path is a file",
    errno.ENOENT: "its folder does not exist",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a part of its path is a file",
    errno.ENAMETOOLONG: "its name is too long",
}


@contextlib.contextmanager
def explained(path: Path, part: Path | None = None) -> Iterator[None]:
    """Say in one line why `path` cannot be written. An error about another file than `part` is left as it is."""
    try:
        yield
    except OSError as error:
        ours = part is None or str(error.filename or "").startswith(str(part))
        reason = _WRITING.get(error.errno or 0) or (_PLACE.get(error.errno or 0) if ours else None)
        if reason is None:
            raise
        raise ConvkitError(f"cannot write {path}: {reason}", hint="choose another place for the output") from error
