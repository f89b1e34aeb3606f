"""What the tests of `convkit quantize` share: a small network, its samples, the command on it, its candidates."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from convkit.cli import batches, quantizing
from convkit.cli.quantizing import Job, Limits
from convkit.compress import data as data_sets
from convkit.compress import model as models
from convkit.compress import plan as plans
from convkit.compress.data import DataRef
from convkit.compress.model import ModelRef
from convkit.compress.search import remedies
from tests import here
from tests.cli import steady
from tests.command_line import Convkit, Result
from tests.compress.network import residual

FILES = ["manifest.json", "model.onnx", "plan.yaml", "report.json"]
"""What the command leaves."""
QUICK = ("--target", "onnxruntime-cpu", "--budget", "1", "--no-tune")
Quantize = Callable[..., Result]


def samples(count: int) -> dict[str, np.ndarray]:
    """Standard normal input of the small network."""
    return {"x": np.random.default_rng(2).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def write(folder: Path) -> Path:
    """net.onnx and calib.npz, 24 samples, in `folder`."""
    residual().save(folder / "net.onnx", "scores")
    np.savez(folder / "calib.npz", **samples(24))
    return folder


def command(convkit: Convkit, folder: Path, out: Path) -> Quantize:
    """`command(…)(*words, model=…, data=…, output=…)`: convkit quantize, on the small network unless told otherwise."""

    def call(
        *words: str, model: str | Path = "net.onnx", data: str | Path = "calib.npz", output: str | Path = out
    ) -> Result:
        places = ("-m", folder / model, "--data", folder / data, "-o", output)
        return convkit("quantize", *map(str, places), *(words if "--target" in words else (*QUICK, *words)))

    return call


def job(folder: Path, **changes: object) -> Job:
    model = models.load(ModelRef(str(folder / "net.onnx")))
    data = data_sets.load(DataRef(str(folder / "calib.npz")), model.inputs)
    target = here.target("onnxruntime-cpu")
    return Job(str(folder / "net.onnx"), model, data, target, Limits(5, 10), **changes)


def candidates(work: Job, folder: Path) -> dict[str, tuple[str, bytes]]:
    """Text of the plan and bytes of the file, by placement."""
    folder.mkdir()
    task = quantizing.task(work, *batches.split(work.data, work.seed))
    chosen = remedies.best(list(remedies.attempts(task)), task.rank)
    made = quantizing._candidates(work, task, chosen, folder)
    return {c.name: (plans.dump(c.plan), c.path.read_bytes()) for c in made}


def searching(
    convkit: Convkit, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, options: Sequence[str]
) -> Quantize:
    """`command` with `options`, into `scratch`/out; the user's cache is there too, and no time is chance."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
    steady.install(monkeypatch)
    call = command(convkit, folder, scratch / "out")
    return lambda *typed, **places: call(*options, *typed, **places)
