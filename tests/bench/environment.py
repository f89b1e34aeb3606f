"""An Environment: what a peer needs and what does not go together with convkit's own packages, in a venv of its own.

Each line of `peers/NAME.txt` is what one `pip install` is given, by exact versions. torch stands first and alone, so
that nothing else brings another build of it. The venv lies in the user's cache and is made on first use, in minutes.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from convkit.compress import record
from tests.bench import packages

_READY = ".ready"
_DIGITS = 12


class RefusedError(Exception):
    """A peer could not be installed, or made nothing of a network; the message is its last line."""


def versions(name: str, wanted: Iterable[str]) -> dict[str, str]:
    """The versions that the environment pins of the packages `wanted`, whether it is installed or not."""
    pinned = dict(re.findall(r"(?:^|\s)([\w.-]+)==(\S+)", "\n".join(_steps(name))))
    return {package: pinned[package] for package in wanted}


def python(name: str) -> Path:
    """The interpreter of the environment called `name`. Raises RefusedError where pip cannot make it."""
    text = _file(name).read_bytes() + sys.version.encode()
    folder = packages.CACHE / "environments" / f"{name}-{record.digest_bytes(text)[:_DIGITS]}"
    found = folder / "bin" / "python"
    if not (folder / _READY).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # one that was interrupted
        _run([sys.executable, "-m", "venv", str(folder)])
        for step in _steps(name):
            _run([str(found), "-m", "pip", "install", "-q", "--no-input", *step.split()])
        (folder / _READY).touch()
    return found


def _file(name: str) -> Path:
    return Path(__file__).parent / "peers" / f"{name}.txt"


def _steps(name: str) -> list[str]:
    lines = (line.strip() for line in _file(name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
