"""Where latency tables are kept: one file for each fingerprint, so that one of another machine is never read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convkit.compress.errors import ConvkitError
from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.disturbance import calm
from convkit.runtimes.latency.table import Fingerprint, LatencyTable


def folder() -> Path:
    """The user's cache folder, as XDG has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convkit" / "latency"


def cached(
    fingerprint: Fingerprint,
    measure: Callable[[], LatencyTable],
    kept: Path | None = None,
    calm: Callable[[], bool] = calm,
) -> LatencyTable:
    """The table kept for `fingerprint` (in the folder `kept`, the user's by default), else what `measure` gives.

    One that was disturbed is measured again when the machine is `calm`, and the steadier of both is kept. A file that
    cannot be read is measured again; a folder that cannot be written to keeps nothing.
    """
    path = (kept or folder()) / f"{fingerprint.digest}.json"
    found = _read(path)
    if found is not None and found.fingerprint != fingerprint:
        found = None
    if found is not None and not (found.disturbance.marked and calm()):
        return found
    made = measure()
    if found is not None and found.disturbance.spread <= made.disturbance.spread:
        return found
    if not made.estimated:
        _keep(made, path)
    return made


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
