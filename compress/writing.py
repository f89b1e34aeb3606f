"""What the system has for writing whole or not at all and by one process, and why something cannot be written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
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


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux's renameat2); False where the system cannot."""
    import ctypes

    at_cwd, both = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), both) == 0)


def claimed(file: Path) -> int | None:
    """A lock on `file` that keeps other processes out as long as it is open, or this one lives; None where another has
    it. A file system without locks keeps nobody out.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(lock)
        return None
    except OSError:
        pass
    return lock
