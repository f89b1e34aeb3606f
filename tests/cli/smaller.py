"""A command that makes networks smaller, on a folder of small ones and their samples, and what it left."""

import json
from pathlib import Path

import numpy as np
import onnxruntime

from tests.command_line import Convkit, Result


class Smaller:
    """`command` on networks of `folder`, into `out`; `net` is the usual one."""

    def __init__(self, command: str, net: str, convkit: Convkit, folder: Path, out: Path) -> None:
        self.command, self.net = command, net
        self.convkit, self.folder, self.out = convkit, folder, out

    def __call__(self, *words: str, net: str = "") -> Result:
        quick = ("--budget", "1", "--no-tune", "-o", str(self.out))
        return self.convkit(self.command, *self.places(net or self.net), *quick, *words)

    def places(self, net: str) -> tuple[str, ...]:
        data = str(self.folder / "calib.npz")
        return "-m", str(self.folder / net), "--data", data, "--target", "onnxruntime-cpu"

    def report(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.out / "report.json").read_text())
        return found

    def outputs(self, path: Path) -> np.ndarray:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": np.load(self.folder / "calib.npz")["x"]})[0])
