"""What kernels take of a network: found, proven, run by ONNX Runtime as it was, and built into engines."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from convkit.compress import parts
from convkit.compress.conv import FOLDER, Conv, Example
from convkit.compress.errors import ConvkitError
from convkit.export import exporter, kernel, kernels
from convkit.export.pattern import attributes
from convkit.export.tensorrt import asserted, build
from convkit.export.tensorrt.request import Profile, Settings
from tests.compress.convs.test_convs import CLOSE, FOLDS, inputs, made, off, traced
from tests.export.tensorrt.planned import TARGET, planned
from tests.export.test_functions import run_by_onnxruntime, written

RTX = "tensorrt_rtx"


class Block(nn.Module):
    """ConvFirst, of which a norm is folded already."""

    def __init__(self, channels: int = 16, *, padding: int = 1) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(channels, channels, 3, padding=padding, groups=channels // 8)
        self.wide, self.narrow = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.narrow(nn.functional.silu(self.wide(self.grouped(x))))
        return x[:, :, : made.shape[2], : made.shape[3]] + made


class Deep(nn.Module):
    """Two large kernels, the second with a stride, around a product that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 7, padding=3, groups=6), nn.Conv2d(6, 6, (5, 9), 2, 1, groups=6)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.last(self.second(hidden * torch.sigmoid(hidden)))


def plain(module: nn.Module, shape: tuple[int, ...]) -> Example:
    torch.manual_seed(0)
    return Example(module.eval(), {"x": shape})


def deformed(*, codes: bool, masked: bool, **attributes: object) -> onnx.ModelProto:
    """A network of one `DeformConv`, as other tools write it."""
    draw = np.random.default_rng(0)
    weight = draw.normal(0, 1, (6, 4, 3, 3)).astype(np.float32)
    nodes, held = list[onnx.NodeProto](), {"bias": draw.normal(0, 1, 6).astype(np.float32)}
    if codes:
        held |= {
            "codes": draw.integers(-127, 128, weight.shape, np.int8),
            "scale": draw.uniform(0.01, 0.02, 6).astype(np.float32),
        }
        nodes.append(helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"], "dequantize", axis=0))
    else:
        held["weight"] = weight
    mask = ["mask"] if masked else []
    told = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} | attributes
    nodes.append(helper.make_node("DeformConv", ["x", "weight", "offset", "bias", *mask], ["y"], "deform", **told))
    shapes = {"x": ["N", 4, 7, 9], "offset": ["N", 18, 7, 9], "mask": ["N", 9, 7, 9]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in ("x", "offset", *mask)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6, 7, 9])
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "net", values, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


TAKEN = {
    "channel_gate": ("eca", 3),
    "evonorm": ("evonorm", 3),
    "grn": ("unireplknet", 4),
    "long_conv": ("sgconv", 2),
    "strip_gate": ("ela", 4),
    "tap_conv": ("inception_dw", 3),
    "time_norm": ("time_norm", 2),
}
"""A novel convolution of which each takes some examples, and how many."""


@pytest.mark.parametrize(("name", "conv", "count"), [(name, *own) for name, own in TAKEN.items()])
def test_a_novel_convolution_is_a_kernels_node_and_computes_what_it_did(name: str, conv: str, count: int) -> None:
    found = 0
    for example in made(conv):
        model = written(example, RTX, methods=FOLDS)
        try:
            taken = kernels.with_kernels(model, [name])
        except ConvkitError:
            continue
        found += 1
        onnx.checker.check_model(model, full_check=True)
        assert {node.name for node in model.graph.node if kernels.is_kernels(node)} == set(taken)
        assert kernels.used(model) == (name,)
        given = inputs(example, 2)
        with torch.no_grad():
            assert off(run_by_onnxruntime(model, given), example.layer(**given)) <= CLOSE
    assert found == count


def test_an_epsilon_that_a_file_leaves_out_is_that_of_the_standard() -> None:
    model = written(made("ela")[0], RTX, methods=FOLDS)
    norms = [node for node in model.graph.node if node.op_type == "GroupNormalization"]
    for node in norms:
        (epsilon,) = (each for each in node.attribute if each.name == "epsilon")
        node.attribute.remove(epsilon)
    taken = kernels.with_kernels(model, ["strip_gate"])
    told = [attributes(node)[kernels.CALL] for node in model.graph.node if node.name in taken]
    assert norms
    assert [json.loads(call)["eps"] for call in told] == [1e-5]


@pytest.mark.parametrize("conv", parts.names(FOLDER))
def test_kernels_take_what_their_table_says_and_leave_what_it_computes(
    conv: str, request: pytest.FixtureRequest
) -> None:
    """Of the examples, and of the layer at its usual size; `--regenerate` writes it. Of convolutions that no kernel
    takes a part of, the first example alone is looked at each time."""
    part: Conv = parts.load(FOLDER, conv)
    whole = request.config.getoption("--regenerate") or kernel.of_conv(conv)
    torch.manual_seed(0)
    usual = [part.usual()] if part.usual is not None and whole else []
    found: set[str] = set()
    for example in [*(made(conv) if whole else made(conv)[:1]), *usual]:
        model = written(example, RTX, methods=FOLDS)
        before = model.SerializeToString(deterministic=True)
        try:
            found |= set(kernels.with_kernels(model, [kernels.ALL]).values())
        except ConvkitError:
            assert model.SerializeToString(deterministic=True) == before
            continue
        if example not in usual:
            given = inputs(example, example.batches[-1])
            with torch.no_grad():
                assert off(run_by_onnxruntime(model, given), example.layer(**given)) <= CLOSE
    if request.config.getoption("--regenerate"):
        _write(conv, found)
    assert kernel.of_conv(conv) == sorted(found)


def _write(conv: str, found: set[str]) -> None:
    for name in kernel.names():
        file = parts.path(kernel.FOLDER, name, kernel.FILE).with_name(kernel.PROVEN)
        told = json.loads(file.read_text())
        told["convs"] = sorted(({*told["convs"]} - {conv}) | ({conv} if name in found else set()))
        file.write_text(json.dumps(told, indent=2) + "\n")


@pytest.mark.parametrize(("sm", "number"), [(75, "fp32"), (80, "bf16"), (86, "fp16"), (120, "fp16")])
def test_engines_are_built_with_it_in_the_planned_type(sm: int, number: str) -> None:
    shown = plain(Deep(), (6, 12, 17))
    model = traced(shown) if number == "fp32" else planned(traced(shown), number)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = exporter.find(TARGET.name)[0].write(model, Path(folder), TARGET.opset).path
        file = onnx.load(path)
        assert len(kernels.with_kernels(file, ["tap_conv"])) == 2
        onnx.save(file, path)
        found = asserted.build_and_assert(RTX, path, Settings(sm=sm))
        again = asserted.build_and_assert(RTX, path, Settings(sm=sm))
    ran = {(one.operator, one.ran) for one in found.findings if one.holds}
    assert ran == {("TapConv", number), ("Conv", number)}
    assert not found.built.warnings
    assert len(found.built.engine) == len(again.built.engine)


BUILT = [
    ("evonorm", "evonorm", 89),
    ("unireplknet", "grn", 86),
    ("eca", "channel_gate", 75),
    ("ela", "strip_gate", 89),
    ("sgconv", "long_conv", 80),
    ("time_norm", "time_norm", 120),
]


@pytest.mark.parametrize(("conv", "name", "sm"), BUILT)
def test_engines_hold_every_kernel(conv: str, name: str, sm: int, tmp_path: Path) -> None:
    model = written(made(conv)[0], RTX, methods=FOLDS)
    taken = kernels.with_kernels(model, [name])
    onnx.save(model, tmp_path / "net.onnx")
    found = asserted.build_and_assert(RTX, tmp_path / "net.onnx", Settings(sm=sm))
    assert {one.node for one in found.findings if one.ran == one.planned == "fp32"} >= set(taken)
    assert b'"binaries"' in found.built.engine
    assert b"no body" not in found.built.engine


class Inverted(nn.Module):
    """MBConv, of which a norm is folded already."""

    def __init__(self, channels: int = 16, *, padding: int = 1, width: int = 8) -> None:
        super().__init__()
        many = 4 * channels
        self.wide, self.narrow = nn.Conv2d(channels, many, 1), nn.Conv2d(many, channels, 1)
        self.grouped = nn.Conv2d(many, many, 3, padding=padding, groups=many // width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.narrow(nn.functional.silu(self.grouped(nn.functional.silu(self.wide(x)))))
        return x[:, :, : made.shape[2], : made.shape[3]] + made


BLOCKS = {"conv_first": Block, "mbconv": Inverted}
OPERATORS = {"conv_first": "ConvFirst", "mbconv": "Mbconv"}


@pytest.mark.parametrize(
    ("name", "block"),
    [("conv_first", Block(padding=0)), ("mbconv", Inverted(padding=0)), ("mbconv", Inverted(width=16))],
)
def test_a_block_of_another_kind_is_left_alone(name: str, block: nn.Module, tmp_path: Path) -> None:
    """One that does not keep the size, or has wider groups."""
    model, _ = planned(traced(plain(block, (16, 9, 12))), "fp16")
    path = exporter.find(TARGET.name)[0].write(model, tmp_path, TARGET.opset).path
    with pytest.raises(ConvkitError, match=f"kernel {name} finds nothing in this network"):
        kernels.with_kernels(onnx.load(path), [name])


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_convolutions_is_one_kernel_in_fp16(name: str, tmp_path: Path) -> None:
    model, _ = planned(traced(plain(BLOCKS[name](), (16, 9, 12))), "fp16")
    path = exporter.find(TARGET.name)[0].write(model, tmp_path, TARGET.opset).path
    file = onnx.load(path)
    before = onnxruntime.InferenceSession(file.SerializeToString())
    assert set(kernels.with_kernels(file, [name]).values()) == {name}
    given = {"x": torch.randn(2, 16, 9, 12).numpy()}
    after = onnxruntime.InferenceSession(file.SerializeToString())
    assert np.array_equal(before.run(None, given)[0], after.run(None, given)[0])
    onnx.save(file, path)
    found = asserted.build_and_assert(RTX, path, Settings(sm=89))
    assert [(one.operator, one.ran) for one in found.findings] == [(OPERATORS[name], "fp16")]


@pytest.mark.parametrize("codes", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_tensorrt_builds_deformable_convolutions_that_its_parser_lacks(
    codes: bool, masked: bool, tmp_path: Path
) -> None:
    model = deformed(codes=codes, masked=masked)
    onnx.save(model, tmp_path / "net.onnx")
    profile = {
        value.name: (2, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])) for value in model.graph.input
    }
    settings = Settings(sm=89, profile=Profile(profile, profile, profile))
    with pytest.raises(ConvkitError, match="DeformConv"):
        asserted.build_and_assert(RTX, tmp_path / "net.onnx", settings)
    given = {name: np.random.default_rng(1).normal(0, 1, shape).astype(np.float32) for name, shape in profile.items()}
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]
    assert kernels.with_kernels(model, ["deform_conv"]) == {"deform": "deform_conv"}
    assert np.array_equal(onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0], before)
    held = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert held["deform.deform_conv.weight"] == (TensorProto.INT8 if codes else TensorProto.FLOAT)
    onnx.save(model, tmp_path / "net.onnx")
    found = asserted.build_and_assert(RTX, tmp_path / "net.onnx", settings)
    assert [(one.operator, one.ran) for one in found.findings] == [("DeformConv", "fp32")]


def test_a_kernel_that_fails_as_the_engine_is_built_is_told(tmp_path: Path) -> None:
    model = written(made("evonorm")[0], RTX, methods=FOLDS)
    kernels.with_kernels(model, ["evonorm"])
    (node,) = (node for node in model.graph.node if kernels.is_kernels(node))
    next(each for each in node.attribute if each.name == kernels.CALL).s = b"{}"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ConvkitError, match="a kernel of convkit's fails as the engine is built, in .*: KeyError"):
        build.build(RTX, tmp_path / "net.onnx", Settings(sm=89))
