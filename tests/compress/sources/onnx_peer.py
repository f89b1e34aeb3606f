"""ONNX files to test with, and ONNX Runtime as the peer that says what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from torch import Tensor

from convkit.compress.model import Model, ModelRef, load, sample_inputs

IR_VERSION = 8
TOLERANCE = 1e-5


def weights(**arrays: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in arrays.items()]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of float32 inputs; the outputs' shapes are left open."""
    made = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        list(initializers),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def saved(proto: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> str:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return str(path)


def session(path: str, level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = level
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_like_onnxruntime(
    model: Model,
    path: str,
    inputs: Mapping[str, Tensor] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> None:
    """Largest difference at most `TOLERANCE` of the largest value, output by output."""
    given = dict(inputs) if inputs is not None else sample_inputs(model.inputs, seed=1)
    feeds = {name: x.numpy() for name, x in given.items()} | {k: np.array(v) for k, v in (fixed or {}).items()}
    expected = session(path).run([spec.name for spec in model.outputs], feeds)
    got = model(given)
    for spec, wanted in zip(model.outputs, expected, strict=True):
        ours = got[spec.name].numpy()
        assert ours.shape == wanted.shape
        assert ours.dtype == wanted.dtype
        scale = max(float(np.abs(wanted).max(initial=0)), 1e-6)
        assert float(np.abs(ours.astype(np.float64) - wanted).max(initial=0)) <= TOLERANCE * scale, spec.name


def loaded_like_onnxruntime(proto: onnx.ModelProto, folder: Path, **shapes: Any) -> Model:
    """The Model of `proto`, after it was found to compute what ONNX Runtime computes."""
    path = saved(proto, folder)
    model = load(ModelRef(path, shapes=shapes))
    assert_like_onnxruntime(model, path)
    return model


def operators(model: Model) -> list[str]:
    """What the graph holds in order: operators by name, layers by their class."""
    nodes = model.graph.graph.nodes
    names = {"call_function": lambda n: n.target.__name__, "call_module": lambda n: _class(model, n)}
    return [names[node.op](node) for node in nodes if node.op in names]


def _class(model: Model, node: torch.fx.Node) -> str:
    return type(model.graph.get_submodule(str(node.target))).__name__
