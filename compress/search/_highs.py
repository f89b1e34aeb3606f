"""HiGHS, as scipy brings it: least objective over binaries and shares, under rows that lie in intervals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

Row = tuple[Mapping[int, float], float, float]
"""Coefficients by column, and the interval that their sum must lie in."""
_GAP = 1e-10
"""Relative distance to the optimum at which a solution ends."""
_OPTIMAL, _INFEASIBLE = 0, 2
_STDOUT = 1


def optimum(objective: Vector, rows: Sequence[Row], upper: Vector, binaries: int) -> Vector | None:
    """Columns of least `objective` from zero to `upper`, the first `binaries` whole; None where the rows allow none."""
    import numpy as np
    from scipy import optimize, sparse

    if not len(objective):
        return objective
    places = [(number, column) for number, (row, _, _) in enumerate(rows) for column in row]
    values = [value for row, _, _ in rows for value in row.values()]
    matrix = sparse.csr_array((values, tuple(zip(*places, strict=True))), shape=(len(rows), len(objective)))
    with _quiet():
        found = optimize.milp(
            objective,
            integrality=np.arange(len(objective)) < binaries,
            bounds=optimize.Bounds(0.0, upper),
            constraints=optimize.LinearConstraint(matrix, [row[1] for row in rows], [row[2] for row in rows]),
            options={"mip_rel_gap": _GAP},
        )
    if found.status not in (_OPTIMAL, _INFEASIBLE):
        raise RuntimeError(f"HiGHS: {found.message}")
    solution: Vector | None = found.x
    return solution


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep stdout, which carries results alone, from a line that HiGHS prints whatever its options say."""
    _flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDOUT)
        yield
    finally:
        _flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _flush() -> None:
    """Empty Python's buffer and C's, each to where it was meant to go."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
