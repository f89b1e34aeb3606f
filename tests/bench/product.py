"""convkit itself, as a person calls it: whole commands, with the time and the memory they take."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from convkit.cli import searching, sensing
from convkit.cli.commands import quantize
from tests.bench.cases import Case

HELP_RUNS = 20
_POLL_SECONDS = 0.05


class FailedError(Exception):
    """convkit ended with `code`; the message is what it said last."""

    def __init__(self, code: int, message: str, command: "Command | None" = None) -> None:
        super().__init__(message)
        self.code, self.command = code, command


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


def precision(case: Case, target: str, number: str, output: Path) -> Path:
    """The file of `convkit quantize --precision` on the case's calibration data, in whatever it costs in accuracy."""
    with tempfile.TemporaryDirectory() as scratch:
        calibration = Path(scratch) / "calibration.npz"
        np.savez(calibration, **case.calibration)  # type: ignore[arg-type]
        words = ["-m", str(case.model), "--data", str(calibration), "--target", target, "-o", str(output)]
        run(["quantize", *words, "--precision", number, "--max-drop", "100", "--min-sqnr", "0"])
    return output / "model.onnx"


@dataclass(frozen=True, slots=True)
class Searched:
    """What `convkit quantize --formats` left in `folder` under `latency`, and what its search took; or what `convkit
    shrink` did, or `convkit train --plan`, which takes a plan as it is and searches nothing.

    `missed`: what it said of a budget out of reach; `evaluations`: passes of lowered networks over as many samples as
    were given, those on a part of them counted as that part, as those of peers are, what made the tables that it began
    with among them; None where it tells none. Gradients of the float network, from which losses are foretold, are not.
    """

    folder: Path
    latency: str | None
    kept: str
    missed: str
    command: Command
    evaluations: float | None
    agreed: bool
    """Whether what it predicted and what it measured met."""

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def knobs(self) -> Mapping[str, Any]:
        """What its plan has the engine run with."""
        return dict(yaml.safe_load((self.folder / "plan.yaml").read_text()).get("engine") or {})


def searched(
    case: Case,
    target: str,
    folder: Path,
    formats: str,
    latency: str | None = None,
    options: Sequence[str] = (),
    *,
    reuse: bool = False,
) -> Searched:
    """`convkit quantize --formats`, under `latency` from the tables of the search without: call it without first."""
    output = folder / ("free" if latency is None else latency.strip("<="))
    if latency is None and not (reuse and _log(output).is_file()):
        shutil.rmtree(folder / "cache", ignore_errors=True)
    wish = _wish(folder / "free" / "tables.json", formats, latency)
    told, report = _asked(case, target, output, ["quantize", *wish, *options], reuse=reuse)
    first = report if latency is None else json.loads((folder / "free" / "report.json").read_text())
    passes = _passes(report, first.get("search", {}).get("pairs", 0), case)
    return _searched(output, latency, told, report, passes)


def shrunk(
    case: Case, target: str, folder: Path, formats: str, latency: str, options: Sequence[str], *, reuse: bool = False
) -> Searched:
    """`convkit shrink --formats`: widths of layers beside their formats, under `latency`."""
    output = folder / f"narrower-{latency.strip('<=')}"
    words = ["shrink", "--formats", formats, "--latency", latency, *options]
    told, report = _asked(case, target, output, words, reuse=reuse)
    return _searched(output, latency, told, report, _passes(report, report["search"]["pairs"], case))


def _log(output: Path) -> Path:
    """Where it stands what the command told that made `output`."""
    return output.parent / f"{output.name}.json"


def _asked(
    case: Case, target: str, output: Path, words: Sequence[str], *, reuse: bool
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What running the command told, and the report that it left."""
    log = _log(output)
    if not (reuse and log.is_file()):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            calibration = Path(scratch) / "calibration.npz"
            np.savez(calibration, **case.calibration)  # type: ignore[arg-type]
            given = ["-m", str(case.model), "--data", str(calibration), "--target", target, "-o", str(output)]
            log.write_text(json.dumps(_tried([*words, *given], output.parent / "cache")))
    return json.loads(log.read_text()), json.loads((output / "report.json").read_text())


def _searched(
    output: Path, latency: str | None, told: Mapping[str, Any], report: Mapping[str, Any], passes: float | None
) -> Searched:
    command = Command(told["seconds"], told["peak"])
    return Searched(output, latency, report["kept"], told["missed"], command, passes, report["search"]["agreed"])


def _passes(report: Mapping[str, Any], pairs: int, case: Case) -> float | None:
    """Networks that ran on samples held back, and `pairs` that ran on a few, in passes over the case's samples."""
    work = report.get("search", {})
    if "evaluations" not in work:
        return None
    held = report["held_back_samples"]
    runs = work["evaluations"] * held + work["glances"] * min(searching.GLANCE, held) + pairs * sensing.SAMPLES
    return float(runs / len(next(iter(case.calibration.values()))))


def _wish(tables: Path, formats: str, latency: str | None) -> list[str]:
    """What is asked: formats, then budgets from the tables of the first search where the command takes such."""
    if latency is None:
        return ["--formats", formats]
    known = any(option.name == "tables" for option in quantize.PART.params)
    return ["--latency", latency, *(["--tables", str(tables)] if known else ["--formats", formats])]


def _tried(words: Sequence[str], cache: Path) -> dict[str, Any]:
    """The command and, where a budget was out of reach, what it said: it leaves the nearest network then."""
    try:
        return asdict(run(words, cache)) | {"missed": ""}
    except FailedError as failure:
        if failure.code != 1 or failure.command is None:
            raise
        return asdict(failure.command) | {"missed": str(failure)}


def help_seconds() -> list[float]:
    """Wall seconds of `convkit --help`, call by call, after a first one that may compile bytecode."""
    run(["--help"])
    return [run(["--help"]).seconds for _ in range(HELP_RUNS)]


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def run(words: Sequence[str], cache: Path | None = None) -> Command:
    """The convkit of this environment, with `cache` for the user's; raises FailedError where it does not succeed."""
    command = [sys.executable, "-m", "convkit.cli.main", *words]
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache.resolve())} if cache else {})
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        watch = _Watch(process.pid)
        watch.start()
        _, messages = process.communicate()
        seconds = time.perf_counter() - started
    watch.join()
    done = Command(seconds, watch.peak)
    if process.returncode:
        raise FailedError(process.returncode, (messages.strip().splitlines() or ["no message"])[-1], done)
    return done


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
