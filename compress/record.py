"""What a result was made from, and how it reaches the disk: digests, the manifest, atomic writes.

A file or folder that convkit writes is either the old one or the new one, whatever kills the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError
from convkit.compress.writing import exchange, explained

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = 1
MANIFEST, MODEL, PLAN, REPORT = "manifest.json", "model.onnx", "plan.yaml", "report.json"
_ENGINES = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx-cu13")
_PACKAGES = ("torch", "onnx", *_ENGINES, "numpy", "scipy", "triton")
_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str) -> str:
    """sha256 of a file's bytes, in hex."""
    sha = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and contents; the order of the mapping does not matter."""
    import numpy as np

    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        sha.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        # The bytes, not the buffer: bfloat16 and the float8 types of ml_dtypes export no buffer.
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def digest_json(value: object) -> str:
    """sha256 of the canonical JSON of `value` (sorted keys; paths as their text)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return digest_bytes(text.encode())


def _plain(value: object) -> object:
    """JSON for what is not: paths, mappings that are no dict, numpy scalars and arrays."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON")


def to_json(value: object) -> str:
    """JSON for people and diffs: two spaces, keys in the order given, one newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"


def write_json(path: Path | str, value: object) -> None:
    """`to_json(value)`, written atomically."""
    write_text(path, to_json(value))


def write_text(path: Path | str, text: str) -> None:
    """UTF-8 text, written atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace the file at `path` by `data`, or leave it as it was.

    Raises ConvkitError when the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained(path):
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def check_output(path: Path | str) -> None:
    """Refuse an output folder that cannot be written, or that holds what convkit did not write; nothing is left there.

    Commands call it before their work starts, so that nobody waits an hour for "read-only".
    """
    path, final = Path(path), final_place(path)
    with explained(path), _parents(final):
        probe = final.with_name(f".{final.name}.{os.getpid()}.probe")
        try:
            probe.mkdir()
        except FileNotFoundError:  # another process that made the folder for a look has removed it
            probe.mkdir(parents=True, exist_ok=True)
        probe.rmdir()
    if path.exists() and not path.is_dir():
        raise ConvkitError(f"output {path} is a file", hint="give a folder")
    foreign = _foreign(path)
    if foreign is not None:
        raise ConvkitError(f"output {path} holds {foreign!r}, which convkit did not write", hint="give a new folder")


def final_place(path: Path | str) -> Path:
    """Where `path` is, with its name. What is around the current folder is refused: to replace it would take that away,
    and to look through it takes long."""
    final = Path(path).absolute()
    if final.name == ".." or final.is_symlink():
        final = final.resolve()
    if not final.name or final.resolve() in Path.cwd().parents:
        raise ConvkitError(f"output {path} holds the folder that you are in", hint="give a new folder")
    return final


@contextlib.contextmanager
def _parents(final: Path) -> Iterator[None]:
    """The folders that `final` is in, for as long as the block runs; those that were there stay."""
    missing = [folder for folder in final.parents if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # another process may have put something there by now
                folder.rmdir()


def _foreign(folder: Path) -> str | None:
    """The first file in `folder` that its manifest does not name; no more of it is looked at."""
    try:
        written = {MANIFEST, *json.loads((folder / MANIFEST).read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            file = Path(root, name).relative_to(folder).as_posix()
            if file not in written:
                return file
    return None


@contextlib.contextmanager
def output_folder(path: Path | str) -> Iterator[Path]:
    """Stage an output folder beside `path` and swap it in whole when the block ends without an error.

    The block writes into the folder it is given. `manifest.json` there then gets `files`, the digest of every file,
    by which a later run knows what it may replace. Raises ConvkitError as `check_output` and for a full disk.
    """
    path = Path(path)
    final = final_place(path)
    _clear_stale(final)
    check_output(path)
    part = final.with_name(f".{final.name}.{os.getpid()}@{_host()}.part")
    with explained(path, part):
        part.mkdir(parents=True)
        try:
            yield part
            _seal(part)
            _swap(part, final)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _clear_stale(final: Path) -> None:
    """Remove what killed processes of this machine left beside `final`, and put back what one had aside."""
    import psutil

    aside = _aside(final)
    if aside.is_dir():
        if final.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(final)
    own = re.compile(re.escape(f".{final.name}.") + r"(\d+)" + re.escape(f"@{_host()}.part"))
    for part in final.parent.glob(".*.part"):
        owner = own.fullmatch(part.name)
        if owner is not None and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(part, ignore_errors=True)


def _host() -> str:
    """This machine, in a file's name: another one may have the same folder, and the same numbers of processes."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "here"


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _seal(part: Path) -> None:
    """List the files in the manifest, and force everything to the disk."""
    file = part / MANIFEST
    text = json.loads(file.read_text()) if file.exists() else {"schema_version": SCHEMA_VERSION}
    written = sorted(f for f in part.rglob("*") if f.is_file() and f != file)
    text["files"] = {f.relative_to(part).as_posix(): digest_file(f) for f in written}
    file.write_text(to_json(text))
    for item in [*written, file, part]:
        _sync(item)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(part: Path, final: Path) -> None:
    """Put `part` where `final` is; afterwards `part` holds the old content, if there was any."""
    if not final.exists():
        part.rename(final)
    elif not exchange(part, final):
        # Without an exchange in the file system: the old folder is aside for a moment, and comes back on failure.
        aside = _aside(final)
        final.rename(aside)
        try:
            part.rename(final)
        except OSError:
            aside.rename(final)
            raise
        shutil.rmtree(aside)
    _sync(final.parent)


def versions() -> dict[str, str]:
    """Versions of convkit, Python and the packages a result depends on, as far as they are installed."""
    from importlib import metadata

    from convkit import __version__

    found = {"convkit": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def machine() -> dict[str, str]:
    """The kind of machine a result was made on; nothing that names this very one."""
    return {"system": platform.system(), "architecture": platform.machine(), "cpu": _cpu_name()}


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def manifest(
    *, command: Sequence[str], digests: Mapping[str, str], target: str | None = None, seed: int = 0, **facts: object
) -> dict[str, Any]:
    """What a result was made from, by what: the text of `manifest.json`.

    `command` is the command line without its output folder, `digests` the sha256 of everything that was read
    ("model", "data", "plan" …), `facts` whatever else belongs to it. No time stamp: same inputs, same bytes.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "target": target,
        "seed": seed,
        "digests": dict(sorted(digests.items())),
        "versions": versions(),
        "machine": machine(),
        **facts,
    }
