"""What `convkit quantize` chooses among and by: placements as files, and when a network is as good."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from convkit.cli import batches, quantizing
from convkit.cli.quantizing import Job, Limits
from convkit.compress import data as data_sets
from convkit.compress import model as models
from convkit.compress import plan as plans
from convkit.compress import target as targets
from convkit.compress.data import Data, DataRef
from convkit.compress.model import ModelRef, parse_shape
from convkit.compress.search import remedies
from convkit.compress.sources import factory
from tests.cli import quantizable
from tests.cli.quantizable import candidates, job
from tests.command_line import Convkit
from tests.compress.network import Net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("quantize"))


def test_every_placement_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    one, other = (candidates(job(folder), tmp_path / name) for name in "ab")
    assert one == other
    assert next(iter(one)) == "everything"
    assert len({written for _, written in one.values()}) == len(one) > 2
    assert candidates(job(folder, seed=1), tmp_path / "c") != one


def test_a_placement_keeps_what_it_says(folder: Path, tmp_path: Path) -> None:
    found = candidates(job(folder, keep=("conv3",)), tmp_path / "a")
    for name, (text, _) in found.items():
        (tmp_path / "plan.yaml").write_text(text)
        layers = plans.read(tmp_path / "plan.yaml").layers
        assert "conv3" not in layers
        assert ("conv0" not in layers) == (name == "first layer in float")
        assert ("sum" in layers) == name.startswith("everything")  # else one of its inputs is in float, or itself


def test_a_plan_gives_its_file_again(folder: Path, tmp_path: Path, convkit: Convkit) -> None:
    for number, (text, written) in enumerate(candidates(job(folder), tmp_path / "made").values()):
        (tmp_path / "plan.yaml").write_text(text)
        words = ("--plan", tmp_path / "plan.yaml", "--data", folder / "calib.npz", "--target", "onnxruntime-cpu")
        threads, out = ("--threads", torch.get_num_threads()), tmp_path / f"out{number}"
        done = convkit("export", *map(str, ("-m", folder / "net.onnx", *words, *threads, "-o", out)))
        assert done.code == 0, done.err
        assert (out / "model.onnx").read_bytes() == written


def test_an_image_is_aligned_as_codes(folder: Path, tmp_path: Path) -> None:
    net = Net(seed=2)
    net.head(net.op("Relu", net.conv("x", 8, 3, stride=2)))
    net.save(tmp_path / "strided.onnx", "scores")
    model = models.load(ModelRef(str(tmp_path / "strided.onnx")))
    found = candidates(replace(job(folder), source=str(tmp_path / "strided.onnx"), model=model), tmp_path / "a")
    written = onnx.load_from_string(found["everything"][1])
    pad = next(node for node in written.graph.node if node.op_type == "Pad")
    quantize = next(node for node in written.graph.node if node.output[0] == pad.input[0])
    assert quantize.op_type == "QuantizeLinear"
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert stored[pad.input[2]] == stored[quantize.input[2]] > 0  # zero is the zero point, in codes


@pytest.mark.parametrize("keep", ["up", "ConvTranspose", "conv0"])
def test_what_is_kept_in_float_is_not_rewritten(folder: Path, tmp_path: Path, keep: str) -> None:
    net = Net(seed=2)
    features = net.op("Relu", net.conv("x", 8, 3))
    up = net.op("ConvTranspose", features, net.weight(net.normal(8, 4, 2, 2, gain=0.3)), name="up", strides=[2, 2])
    net.head(net.op("Relu", net.conv(up, 8, 3, channels=4)))
    net.save(tmp_path / "up.onnx", "scores")
    model = models.load(ModelRef(str(tmp_path / "up.onnx")))
    found = candidates(
        replace(job(folder, keep=(keep,)), source=str(tmp_path / "up.onnx"), model=model), tmp_path / "a"
    )
    written = onnx.load_from_string(found["everything"][1])
    assert ("ConvTranspose" in {node.op_type for node in written.graph.node}) == (keep != "conv0")


def test_a_second_output_that_collapses_is_seen(folder: Path, tmp_path: Path) -> None:
    """The first output is fine; the second lives on a channel ten thousand times smaller than its neighbour."""
    net = Net(seed=6)
    features = net.op("Relu", net.conv("x", 4, 3))
    scaled = net.op("Mul", features, net.weight(np.float32([1e4, 1, 1, 1])[None, :, None, None]))
    after = net.normal(3, 4, 1, 1, gain=0.5)
    after[:, 0] = 0
    net.head(features, channels=4)
    small = net.conv(scaled, 3, weight=after, channels=4)
    net.save(tmp_path / "two.onnx", "scores", small)
    model = models.load(ModelRef(str(tmp_path / "two.onnx")))
    data = data_sets.load(DataRef(str(folder / "calib.npz")), model.inputs)
    work = Job("", model, data, targets.load("onnxruntime-cpu"), Limits(5, 10))
    tried = list(remedies.attempts(quantizing.task(work, *batches.split(work.data, work.seed))))
    assert not tried[0].good
    assert tried[-1].good
    assert small not in tried[-1].plan.layers


def test_a_network_of_torch_competes_as_its_engine_wants_it() -> None:
    """Not as the plain file, in which ONNX Runtime loses a group norm's digits."""
    network = factory.from_module(
        nn.Sequential(nn.GroupNorm(2, 4)), ModelRef("nets:build", shapes=dict([parse_shape("input:Nx4x8x8")]))
    )
    data = Data({"input": np.random.default_rng(0).standard_normal((8, 4, 8, 8)).astype(np.float32)}, None, "")
    work = Job("nets:build", network, data, targets.load("onnxruntime-cpu"), Limits(5, 10))
    kinds = {node.op_type for node in onnx.load_from_string(quantizing.original_bytes(work)).graph.node}
    assert "InstanceNormalization" in kinds
    assert "GroupNormalization" not in kinds


def test_an_original_whose_batch_was_fixed_is_that_network(folder: Path) -> None:
    """The file given leaves it free."""
    ref = ModelRef(str(folder / "net.onnx"), shapes=dict([parse_shape("x:8x3x8x8")]))
    kept = onnx.load_from_string(quantizing.original_bytes(replace(job(folder), model=models.load(ref))))
    assert [dim.dim_value for dim in kept.graph.input[0].type.tensor_type.shape.dim] == [8, 3, 8, 8]
