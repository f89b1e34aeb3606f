"""Where latency tables are kept: one file for each fingerprint, so that one of another machine is never read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from convkit.compress.errors import ConvkitError
from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.disturbance import calm
from convkit.runtimes.latency.table import Fingerprint, LatencyTable


def folder() -> Path:
    """The user's cache folder, as XDG has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convkit" / "latency"


def cached(
    fingerprints: Sequence[Fingerprint],
    measure: Callable[[], Sequence[LatencyTable]],
    kept: Path | None = None,
    calm: Callable[[], bool] = calm,
) -> list[LatencyTable]:
    """The tables kept for `fingerprints` (in the folder `kept`, the user's by default), else what `measure` gives.

    They are of one measurement, side by side, or of none. Those that were disturbed are measured again when the machine
    is `calm`, and the steadier are kept. A file that cannot be read is measured again; a folder that cannot be written
    to keeps nothing.
    """
    paths = [(kept or folder()) / f"{one.digest}.json" for one in fingerprints]
    read = [_read(path) for path in paths]
    found = [one for one, own in zip(read, fingerprints, strict=True) if one is not None and one.fingerprint == own]
    whole = len(found) == len(fingerprints)
    if whole and not (any(one.disturbance.marked for one in found) and calm()):
        return found
    made = list(measure())
    if whole and _spread(found) <= _spread(made):
        return found
    for one, path in zip(made, paths, strict=True):
        if not one.estimated:
            _keep(one, path)
    return made


def _spread(found: Sequence[LatencyTable]) -> float:
    return max(one.disturbance.spread for one in found)


def _read(path: Path) -> LatencyTable | None:
    try:
        return tables.read(path) if path.is_file() else None
    except (OSError, ConvkitError):
        return None


def _keep(table: LatencyTable, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write(table, path)
    except (OSError, ConvkitError):
        return
