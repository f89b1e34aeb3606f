"""An input that is one number, without axes: a threshold, a scale."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convkit.compress.model import TensorSpec
from convkit.runtimes.bench import inputs
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.measure import Settings, measure


def scaled(path: Path) -> str:
    """A net that multiplies `x` by the number `scale`."""
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", [1, 3]), ("scale", []))
    ]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "scale"], ["y"])], "scaled", given, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_it_is_timed_with_one_number(tmp_path: Path, engine: str) -> None:
    net = scaled(tmp_path / "net.onnx")
    assert measure([Candidate("a", engine, net)], settings=Settings(budget=0.1))["a"].calls


def test_it_fits_another_candidate_as_one_number() -> None:
    (fitted,) = inputs.fitted([TensorSpec("scale", (), "float32")], [{"scale": np.array(3, np.float64)}])
    assert (fitted["scale"].shape, fitted["scale"].dtype) == ((), np.float32)
