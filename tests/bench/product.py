"""convkit itself, as a person calls it: whole commands, with the time and the memory they take."""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.bench.cases import Case

HELP_RUNS = 20
_POLL_SECONDS = 0.05


class FailedError(Exception):
    """convkit ended with `code`; the message is what it said last."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Command:
    """A command that ran: wall seconds, and the most resident bytes that it and its children held together.

    Pages that processes share are counted in each, so the true peak is no higher.
    """

    seconds: float
    peak: int


@dataclass(frozen=True, slots=True)
class Quantized:
    """What `convkit quantize` left in `folder`, and what it took."""

    model: Path
    verdict: str
    kept: str
    command: Command


def quantized(case: Case, target: str, folder: Path, *, reuse: bool = False) -> Quantized:
    """`convkit quantize` on the case's calibration data alone; `reuse` takes what an earlier run left in `folder`."""
    output, log = folder / case.name / target, folder / case.name / f"{target}.json"
    if not (reuse and log.is_file()):
        log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            calibration = Path(scratch) / "calibration.npz"
            np.savez(calibration, **case.calibration)  # type: ignore[arg-type]
            words = ["-m", str(case.model), "--data", str(calibration), "--target", target, "-o", str(output)]
            log.write_text(json.dumps(asdict(run(["quantize", *words]))))
    report = json.loads((output / "report.json").read_text())
    command = Command(**json.loads(log.read_text()))
    return Quantized(output / "model.onnx", report["verdict"], report["kept"], command)


def help_seconds() -> list[float]:
    """Wall seconds of `convkit --help`, call by call, after a first one that may compile bytecode."""
    run(["--help"])
    return [run(["--help"]).seconds for _ in range(HELP_RUNS)]


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def run(words: Sequence[str]) -> Command:
    """The convkit of this environment; raises FailedError where it does not succeed."""
    command = [str(Path(sys.executable).with_name("convkit")), *words]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        watch = _Watch(process.pid)
        watch.start()
        _, messages = process.communicate()
        seconds = time.perf_counter() - started
    watch.join()
    if process.returncode:
        raise FailedError(process.returncode, (messages.strip().splitlines() or ["no message"])[-1])
    return Command(seconds, watch.peak)


class _Watch(threading.Thread):
    """Looks at a process and its descendants until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self) -> None:
        try:
            process = psutil.Process(self.pid)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                family = [process, *process.children(recursive=True)]
                self.peak = max(self.peak, sum(map(_resident, family)))
                time.sleep(_POLL_SECONDS)
        except psutil.NoSuchProcess:
            return


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
