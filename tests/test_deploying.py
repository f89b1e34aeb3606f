"""docs/deploying.md: its code runs as it stands there, and its tables have every knob of the engines."""

import re
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import parts
from tests.compress.network import residual

PAGE = (Path(__file__).parent.parent / "docs" / "deploying.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_it_has_the_code_of_two_engines() -> None:
    assert [re.findall(r"^import (\w+)$", code, re.MULTILINE) for code in CODE] == [["onnxruntime"], ["openvino"]]


@pytest.mark.parametrize("code", CODE, ids=["onnxruntime", "openvino"])
def test_code_runs_as_it_stands_there(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    residual().save(tmp_path / "model.onnx", "scores")
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    names: dict[str, object] = {"x": x}
    exec(code, names)
    assert np.isfinite(np.asarray(names["result"])).all()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_knob_has_its_line(engine: str) -> None:
    table = PAGE.split(f"| knob of `{engine}` |")[1].split("\n\n")[0]
    told = re.findall(r"^\| `(\w+): ", table, re.MULTILINE)
    assert sorted(told) == sorted(knob.name for knob in parts.load("runtimes", engine).knobs)
