"""Every net as ONNX: the checker passes, ONNX Runtime agrees, names stay, import gives the same network back."""

import operator
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import ops
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, TensorSpec, load, sample_inputs
from convkit.export.onnx import to_onnx
from tests.compress.sources.test_nets import relative
from tests.nets.small import NETS, ref


def run(model: onnx.ModelProto, inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Outputs on ONNX Runtime without its own rewriting."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v.numpy() for k, v in inputs.items()}), strict=True))


@pytest.mark.parametrize("name", NETS)
def test_a_net(name: str, tmp_path: Path) -> None:
    """One test a net, as loading takes longest."""
    model = load(ref(name))
    written = to_onnx(model)
    onnx.checker.check_model(written, full_check=True)
    on_onnx_runtime(model, written, NETS[name].other)
    names_and_free_sizes_stay(model, written.graph)
    import_gives_the_net_back(model, written, tmp_path / "net.onnx")


def on_onnx_runtime(model: Model, written: onnx.ModelProto, other: tuple[int, ...]) -> None:
    (spec,) = model.inputs
    for shape in (spec.sample, other):
        inputs = {spec.name: torch.randn(shape, generator=torch.Generator().manual_seed(2))}
        wanted, found = model(inputs), run(written, inputs)
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert relative(torch.from_numpy(found[key]), value) <= 1e-5


def import_gives_the_net_back(model: Model, written: onnx.ModelProto, path: Path) -> None:
    onnx.save(written, path)
    again = load(ModelRef(str(path)))
    (spec,) = model.inputs
    assert [s.name for s in again.inputs + again.outputs] == [s.name for s in model.inputs + model.outputs]
    inputs = {spec.name: torch.randn(spec.sample, generator=torch.Generator().manual_seed(3))}
    for key, value in model(inputs).items():
        assert relative(again(inputs)[key], value) <= 1e-6
    assert set(layers(again)) == set(layers(model))


def test_what_was_imported_once_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(to_onnx(load(ref("volume"))), path)
    once = to_onnx(load(ModelRef(str(path))))
    onnx.save(once, path)
    assert to_onnx(load(ModelRef(str(path)))).SerializeToString() == once.SerializeToString()


def layers(model: Model) -> list[str]:
    return [str(node.target) for node in model.graph.graph.nodes if node.op == "call_module"]


def names_and_free_sizes_stay(model: Model, written: onnx.GraphProto) -> None:
    assert set(layers(model)) <= {node.name for node in written.node}
    assert len({node.name for node in written.node}) == len(written.node)
    for spec, value in zip(model.inputs + model.outputs, [*written.input, *written.output], strict=True):
        dims = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        assert (value.name, dims) == (spec.name, spec.shape)
    kept = {graphs.value(node) for node in graphs.computes(model.graph) if not (merged(node) or is_several(node))}
    tensors = {name for node in written.node for name in node.output}
    assert {name for name in kept if name not in tensors} <= {s.name for s in model.outputs}


def is_several(node: fx.Node) -> bool:
    return all(user.target is operator.getitem for user in node.users)


def merged(node: fx.Node) -> bool:
    reader = graphs.sole_user(node)
    return graphs.operator(node) == "Pad" and reader is not None and graphs.operator(reader) == "Conv"


def test_the_same_net_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys; from convkit.compress.model import load; from convkit.export.onnx import to_onnx;"
        "from tests.nets.small import ref; from convkit.compress.record import digest_bytes;"
        "print(digest_bytes(to_onnx(load(ref('resnet'))).SerializeToString(deterministic=True)))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


class Graph:
    """A Model made by hand, node by node."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()
        self.spec = TensorSpec("x", ("N", *shape[1:]), "float32", shape)
        self.x = self._named(self.graph.placeholder("x"), "x")

    def _named(self, node: fx.Node, name: str) -> fx.Node:
        node.meta.update(value=name, layer="")
        return node

    def constant(self, name: str, tensor: Tensor) -> fx.Node:
        self.root.register_buffer(name, tensor)
        return self._named(self.graph.get_attr(name), name)

    def call(self, kind: str, name: str, *args: fx.Node | None, **attributes: object) -> fx.Node:
        return self._named(self.graph.call_function(ops.function(kind), args, attributes), name)

    def layer(self, name: str, layer: nn.Module, x: fx.Node) -> fx.Node:
        self.root.add_module(name, layer)
        return self._named(self.graph.call_module(name, (x,)), f"{name}_out")

    def model(self, *results: fx.Node, names: tuple[str, ...] = ()) -> Model:
        self.graph.output(results)
        outputs = tuple(TensorSpec(n, (), "float32") for n in names or [graphs.value(r) for r in results])
        model = Model(fx.GraphModule(self.root, self.graph), (self.spec,), outputs, "hand", "0" * 64)
        shapes = {k: tuple(v.shape) for k, v in model(sample_inputs(model.inputs)).items()}
        return model.replace(outputs=tuple(TensorSpec(n, ("N", *s[1:]), "float32", s) for n, s in shapes.items()))


def agrees(model: Model) -> onnx.ModelProto:
    written = to_onnx(model)
    onnx.checker.check_model(written, full_check=True)
    inputs = sample_inputs(model.inputs, seed=5)
    found = run(written, inputs)
    for key, value in model(inputs).items():
        assert relative(torch.from_numpy(found[key]), value) <= 1e-5
    return written


def pad(graph: Graph, pads: list[int], value: float | None = None) -> fx.Node:
    sizes = graph.constant("pads", torch.tensor(pads))
    fill = None if value is None else graph.constant("fill", torch.tensor(value))
    return graph.call("Pad", "padded", graph.x, sizes, fill)


@given(
    begin=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    end=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    own=st.integers(0, 2),
)
@settings(max_examples=20)
def test_padding_becomes_the_pads_of_its_conv(begin: tuple[int, int], end: tuple[int, int], own: int) -> None:
    graph = Graph((2, 3, 9, 8))
    conv = graph.layer("conv", nn.Conv2d(3, 4, 3, stride=2, padding=own), pad(graph, [0, 0, *begin, 0, 0, *end]))
    (node,) = agrees(graph.model(conv)).graph.node
    pads = {a.name: list(a.ints) for a in node.attribute}["pads"]
    assert (node.op_type, pads) == ("Conv", [p + own for p in (*begin, *end)])


@pytest.mark.parametrize(
    ("pads", "value"), [([0, 1, 0, 0, 0, 0, 0, 0], None), ([0, 0, 1, 1, 0, 0, 1, 1], 0.5)], ids=["channels", "not zero"]
)
def test_padding_that_a_conv_cannot_do_stays(pads: list[int], value: float | None) -> None:
    graph = Graph((2, 3, 9, 8))
    padded = pad(graph, pads, value)
    conv = graph.layer("conv", nn.Conv2d(3 + pads[1], 4, 3), padded)
    assert [node.op_type for node in agrees(graph.model(conv)).graph.node] == ["Pad", "Conv"]


def test_padding_that_two_read_stays() -> None:
    graph = Graph((2, 3, 9, 8))
    padded = pad(graph, [0, 0, 1, 1, 0, 0, 1, 1])
    one, two = (graph.layer(name, nn.Conv2d(3, 4, 3), padded) for name in ("one", "two"))
    assert [node.op_type for node in agrees(graph.model(one, two)).graph.node] == ["Pad", "Conv", "Conv"]


@pytest.mark.parametrize(
    ("pool", "value", "attributes", "kept"),
    [
        ("AveragePool", 0.0, {"count_include_pad": 1}, False),
        ("AveragePool", 0.0, {}, True),
        ("MaxPool", -np.inf, {}, False),
        ("MaxPool", 0.0, {}, True),
    ],
)
def test_padding_before_a_pool(pool: str, value: float, attributes: dict[str, int], kept: bool) -> None:
    graph = Graph((2, 3, 9, 8))
    padded = pad(graph, [0, 0, 1, 0, 0, 0, 1, 1], float(value))
    pooled = graph.call(pool, "pooled", padded, kernel_shape=[3, 3], strides=[2, 2], **attributes)
    written = agrees(graph.model(pooled))
    assert [node.op_type for node in written.graph.node] == (["Pad"] if kept else []) + [pool]


@pytest.mark.parametrize(("shape", "nodes"), [((4, 6), ["Gemm"]), ((4, 5, 6), ["MatMul", "Add"])])
def test_a_linear_layer_by_rank(shape: tuple[int, ...], nodes: list[str]) -> None:
    graph = Graph(shape)
    assert [n.op_type for n in agrees(graph.model(graph.layer("fc", nn.Linear(6, 3), graph.x))).graph.node] == nodes


def test_shared_parameters_are_written_once() -> None:
    graph, one = Graph((2, 4, 5, 5)), nn.Conv2d(4, 4, 3, padding=1)
    two = nn.Conv2d(4, 4, 3, padding=1)
    two.weight, two.bias = one.weight, one.bias
    written = agrees(graph.model(graph.layer("two", two, graph.layer("one", one, graph.x))))
    assert [tensor.name for tensor in written.graph.initializer] == ["one.weight", "one.bias"]


def test_unread_constants_are_dropped_and_unread_outputs_named() -> None:
    graph = Graph((2, 6, 4, 4))
    graph.constant("unused", torch.ones(3))
    split = graph.call("Split", "split", graph.x, num_outputs=3, axis=1)
    second = graph._named(graph.graph.call_function(operator.getitem, (split, 1)), "second")
    written = agrees(graph.model(second))
    assert not written.graph.initializer
    assert written.graph.node[0].output[1] == "second"
    assert len(set(written.graph.node[0].output)) == 3


def test_outputs_that_are_inputs_or_share_a_tensor() -> None:
    graph = Graph((2, 3))
    relu = graph.call("Relu", "relu", graph.x)
    written = agrees(graph.model(relu, relu, graph.x, names=("first", "second", "third")))
    assert [value.name for value in written.graph.output] == ["first", "second", "third"]


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.bool]
)
def test_types_of_constants(dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    graph = Graph((2, 3))
    cast = graph.call("Cast", "cast", graph.constant("constant", values), to=1)
    written = agrees(graph.model(graph.call("Add", "sum", graph.x, cast)))
    (tensor,) = written.graph.initializer
    assert tensor.data_type == onnx.helper.np_dtype_to_tensor_dtype(numpy_helper.to_array(tensor).dtype)
    assert np.array_equal(numpy_helper.to_array(tensor).astype(np.float32), values.float().numpy())


def test_quantized_chain() -> None:
    graph = Graph((2, 3, 8, 8))
    scale, zero = (
        graph.constant("scale", torch.tensor(0.02)),
        graph.constant("zero", torch.tensor(128, dtype=torch.uint8)),
    )
    codes = graph.constant("w", torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8))
    scales = graph.constant("w_scale", torch.rand(4) * 0.01 + 0.001)
    zeros = graph.constant("w_zero", torch.zeros(4, dtype=torch.int8))
    x = graph.call("DequantizeLinear", "x_dq", graph.call("QuantizeLinear", "x_q", graph.x, scale, zero), scale, zero)
    w = graph.call("DequantizeLinear", "w_dq", codes, scales, zeros, axis=0)
    written = agrees(graph.model(graph.call("Conv", "y", x, w, None, pads=[1, 1, 1, 1])))
    kinds = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert (kinds["w"], kinds["zero"]) == (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def test_a_later_operator_raises_the_opset() -> None:
    for kind, opset in (("Relu", 21), ("Swish", 24)):
        graph = Graph((2, 3))
        assert to_onnx(graph.model(graph.call(kind, "y", graph.x))).opset_import[0].version == opset


def test_an_opset_that_is_too_old_is_refused() -> None:
    graph = Graph((2, 3))
    model = graph.model(graph.call("Relu", "y", graph.x))
    assert to_onnx(model, 18).opset_import[0].version == 18
    with pytest.raises(ConvkitError, match="opset 17"):
        to_onnx(model, 17)
