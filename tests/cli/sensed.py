"""What the tests of `convkit sensitivity`, and of the search that goes on from there, share."""

import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from convkit.cli.main import main
from tests.cli import quantizable, steady
from tests.cli.commands.test_quantize import heavy_and_samples

TARGET = "onnxruntime-cpu"
USUAL = ("--target", TARGET, "--threads", "1", "--min-sqnr", "5")
ASKED = (*USUAL, "--formats", "int8,int4")
TIMED = ("--budget", "1", "--no-tune")
SEARCH = (*ASKED, *TIMED, "--size", "<=0.22x")


def write(folder: Path) -> Path:
    """The small network and a heavy one, their samples, and in small/ and sens/ what their layers lose."""
    quantizable.write(folder)
    heavy_and_samples(folder / "heavy.onnx", folder / "heavy.npz")
    for model, data, out in (("net.onnx", "calib.npz", "small"), ("heavy.onnx", "heavy.npz", "sens")):
        with pytest.raises(SystemExit) as left:
            main(["sensitivity", str(folder / model), "--data", str(folder / data), *ASKED, "-o", str(folder / out)])
        assert left.value.code == 0
    return folder


def searching(call: quantizable.Quantize, model: str = "heavy.onnx", data: str = "heavy.npz") -> quantizable.Quantize:
    """`call` on the heavy network unless told otherwise: it has pairs to measure truly."""
    return lambda *words, **places: call(*words, **({"model": model, "data": data} | places))


def counted(patch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each costly thing is done from now on, by the names that `steady` has for them."""
    counts: Counter[str] = Counter()

    def counting(event: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: object, **options: object) -> object:
            counts[event] += 1
            return function(*words, **options)

        return call

    for event in ("remedy", "sensitivity", "truth"):
        module, _, name = steady.COSTLY[event].rpartition(".")
        patch.setattr(steady.COSTLY[event], counting(event, getattr(import_module(module), name)))
    return counts


def read(path: Path) -> Any:
    """What a file holds."""
    return json.loads(path.read_text())
