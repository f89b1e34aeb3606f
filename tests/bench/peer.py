"""A Peer: another quantizer, one file a peer in `peers/`, and what it made of a network, kept in the user's cache."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from convkit.compress import record
from convkit.runtimes.bench import machine
from tests.bench import environment, packages, process
from tests.bench.environment import RefusedError

PEERS = (
    "onnxruntime_static",
    "nncf_post_training",
    "nncf_accuracy_control",
    "modelopt_int8",
    "aimet_mixed_precision",
)
PACKED = "packed.json"
"""In a cache that was packed elsewhere: the versions by which each peer's files were made there."""
_ROOT = Path(__file__).parents[2]
_VNNI = {"avx512_vnni", "avx_vnni"}


@dataclass(frozen=True, slots=True)
class Peer:
    """`peers/PART.py` writes `file`; `packages` are what its result depends on, `environment` where they are.

    Without an environment they are those of the bench. `validates`: whether it measures accuracy again and again, for
    which it is given the right answers where there are any; `runs`: whether it does so in the engine's own INT8
    arithmetic.
    """

    part: str
    name: str
    file: str
    packages: tuple[str, ...]
    environment: str | None
    validates: bool
    runs: bool
    source: Path


def load(part: str) -> Peer:
    """The peer in `peers/PART.py`."""
    module: ModuleType = importlib.import_module(f"tests.bench.peers.{part}")
    told = [getattr(module, name, False) for name in ("VALIDATES", "RUNS")]
    place = getattr(module, "ENVIRONMENT", None)
    return Peer(part, module.NAME, module.FILE, module.PACKAGES, place, *told, Path(str(module.__file__)))


def versions(peer: Peer) -> dict[str, str]:
    """The versions of what the peer needs; ends the bench where one is missing."""
    packed = packages.CACHE / PACKED
    if packed.is_file():
        return dict(json.loads(packed.read_text())[peer.part])
    if peer.environment:
        return environment.versions(peer.environment, peer.packages)
    try:
        return {package: metadata.version(package) for package in peer.packages}
    except metadata.PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: see constraints.txt") from error


def quantized(
    peer: Peer,
    model: Path,
    calibration: Mapping[str, np.ndarray],
    truth: np.ndarray | None = None,
    *,
    exact: bool | None = None,
) -> Path:
    """The file the peer made of `model`: from the cache, or in a process of its own, which takes minutes.

    A peer that `runs` what it validates decides otherwise where INT8 kernels saturate, that is without VNNI; `exact`
    lets it decide as with VNNI. Raises RefusedError where the peer fails.
    """
    exact = has_vnni() if exact is None else exact
    arrays = dict(calibration) | ({process.TRUTH: truth} if peer.validates and truth is not None else {})
    folder = _folder(peer, model, arrays, exact=exact)
    if not folder.is_dir():
        if (packages.CACHE / PACKED).is_file():
            raise RefusedError("it was not packed")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            np.savez(Path(scratch) / "calibration.npz", **arrays)
            _run(peer, [model, Path(scratch) / "calibration.npz", made / peer.file], exact=exact)
            made.rename(folder)
    return folder / peer.file


def cost(file: Path) -> Mapping[str, Any]:
    """What the peer told of making `file`: seconds; those that validate, `evaluations` and the `drop` they ended at."""
    found: dict[str, Any] = json.loads(file.with_name(process.COST).read_text())
    return found


def has_vnni() -> bool:
    """Whether sums of u8 times s8 are exact on this CPU."""
    return bool(_VNNI & set(machine.fingerprint()["flags"]))


def _folder(peer: Peer, model: Path, arrays: Mapping[str, np.ndarray], *, exact: bool) -> Path:
    digests = [versions(peer), record.digest_file(peer.source), record.digest_file(model), record.digest_arrays(arrays)]
    return packages.CACHE / "peers" / peer.part / record.digest_json([*digests, exact or not peer.runs])


def _run(peer: Peer, paths: list[Path], *, exact: bool) -> None:
    interpreter = environment.python(peer.environment) if peer.environment else sys.executable
    simulated = ["simulated"] if peer.runs and exact and not has_vnni() else []
    command = [interpreter, "-m", "tests.bench.process", peer.part, *paths, *simulated]
    done = subprocess.run(command, env=os.environ, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not paths[-1].is_file():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RefusedError(lines[-1])
