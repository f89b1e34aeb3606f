"""What a file's network makes is held no longer while it is read than while it runs."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import helper

from convkit.compress.model import ModelRef, load
from convkit.compress.sources import _onnx_graph
from convkit.compress.sources._onnx_operation import Operation


def write(path: Path, nodes: list[onnx.NodeProto], outputs: list[str]) -> str:
    one = onnx.numpy_helper.from_array(torch.tensor([1.0]).numpy(), "one")
    results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    x = helper.make_tensor_value_info("x", 1, [1, 4, 8, 8])
    graph = helper.make_graph(nodes, "N", [x], results, [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return str(path)


def chain(length: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", [f"t{i - 1}" if i else "x", "one"], [f"t{i}"], name=f"add{i}") for i in range(length)
    ]


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many results were held whenever an operator had run."""
    made: list[weakref.ref[Any]] = []
    counts: list[int] = []
    real = _onnx_graph.run

    def run(op: Operation, call: Callable[[], Any]) -> Any:
        result = real(op, call)
        made.extend(weakref.ref(one) for one in (result if isinstance(result, tuple | list) else (result,)))
        counts.append(sum(1 for one in made if one() is not None))
        return result

    monkeypatch.setattr(_onnx_graph, "run", run)
    return counts


def test_a_long_network_holds_two_results_at_a_time(tmp_path: Path, alive: list[int]) -> None:
    load(ModelRef(write(tmp_path / "net.onnx", chain(40), ["t39"])))
    assert (len(alive), max(alive)) == (40, 2)


def test_what_is_read_late_and_what_leaves_is_held(tmp_path: Path, alive: list[int]) -> None:
    nodes = [
        *chain(10),
        helper.make_node("Identity", ["t0"], ["same"], name="same"),
        helper.make_node("Add", ["t9", "same"], ["sum"], name="sum"),
        helper.make_node("Split", ["sum"], ["low", "high"], name="split", axis=1, num_outputs=2),
        helper.make_node("Mul", ["low", "high"], ["y"], name="mul"),
    ]
    model = load(ModelRef(write(tmp_path / "net.onnx", nodes, ["y", "t4"])))
    assert max(alive) == 5  # t0, t4, one of the chain, and what is made of it; then the halves
    x = torch.randn(1, 4, 8, 8)
    found = model({"x": x})
    total = (x + 10) + (x + 1)
    assert torch.allclose(found["t4"], x + 5)
    assert torch.allclose(found["y"], total[:, :2] * total[:, 2:], rtol=1e-4)
