"""A Peer: another quantizer, one file a peer in `peers/`, and what it made of a network, kept in the user's cache.

python -m tests.bench.peer PEER MODEL CALIBRATION.npz OUTPUT     runs one
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

from convkit.compress import record
from tests.bench import packages

PEERS = ("onnxruntime_static", "nncf_post_training")


class RefusedError(Exception):
    """The peer made nothing of this network; the message is its last line."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`quantize(model, calibration, output)` writes `file`; `packages` are what its result depends on."""

    part: str
    name: str
    file: str
    packages: tuple[str, ...]
    quantize: Callable[[Path, Mapping[str, np.ndarray], Path], None]


def load(part: str) -> Peer:
    """The peer in `peers/PART.py`."""
    module: ModuleType = importlib.import_module(f"tests.bench.peers.{part}")
    return Peer(part, module.NAME, module.FILE, module.PACKAGES, module.quantize)


def versions(peer: Peer) -> dict[str, str]:
    """The installed versions of what the peer needs; ends the bench where one is missing."""
    try:
        return {package: metadata.version(package) for package in peer.packages}
    except metadata.PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -r tests/bench/peers.txt") from error


def quantized(peer: Peer, model: Path, calibration: Mapping[str, np.ndarray]) -> Path:
    """The file the peer made of `model`: from the cache, or in a process of its own, which takes minutes.

    Raises RefusedError where the peer fails.
    """
    source = Path(str(sys.modules[peer.quantize.__module__].__file__))
    digests = [versions(peer), record.digest_file(source), record.digest_file(model)]
    folder = packages.CACHE / "peers" / peer.part / record.digest_json([*digests, record.digest_arrays(calibration)])
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            np.savez(Path(scratch) / "calibration.npz", **calibration)  # type: ignore[arg-type]
            _run(peer, model, Path(scratch) / "calibration.npz", made / peer.file)
            made.rename(folder)
    return folder / peer.file


def _run(peer: Peer, model: Path, calibration: Path, output: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.peer", peer.part, str(model), str(calibration), str(output)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode or not output.is_file():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RefusedError(lines[-1])


def main(part: str, model: str, calibration: str, output: str) -> None:
    with np.load(calibration) as arrays:
        load(part).quantize(Path(model), dict(arrays), Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
