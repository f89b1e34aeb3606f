"""Whose bytes are returned where nothing was changed."""

from pathlib import Path

import onnx

from convkit.cli.original import own_bytes
from convkit.compress.model import ModelRef, load, parse_shape
from convkit.runtimes.bench.size import model_size
from tests.compress.network import Net, residual


def test_a_whole_file_is_returned_as_it_is(tmp_path: Path) -> None:
    file = residual().save(tmp_path / "net.onnx", "scores")
    model = load(ModelRef(file))
    assert own_bytes(file, model) == Path(file).read_bytes()
    apart = str(tmp_path / "apart.onnx")
    onnx.save(onnx.load(file), apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    assert own_bytes(apart, load(ModelRef(apart))) is None
    assert own_bytes("models:build", model) is None


def test_a_file_whose_input_was_given_a_value_is_another_network(tmp_path: Path) -> None:
    net = Net()
    file = net.save(tmp_path / "two.onnx", net.op("Mul", net.conv("x", 4), "gain"))
    proto = onnx.load(file)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("gain", onnx.TensorProto.FLOAT, [1]))
    onnx.save(proto, file)
    assert own_bytes(file, load(ModelRef(file))) == Path(file).read_bytes()
    assert own_bytes(file, load(ModelRef(file, args={"gain": [2.0]}))) is None


def test_a_file_with_a_size_that_was_fixed_is_another_network(tmp_path: Path) -> None:
    """One that the file fixes itself, or that is free by another name, is its own."""
    free, fixed = residual().save(tmp_path / "free.onnx", "scores"), str(tmp_path / "fixed.onnx")
    residual(8, 3, 8, 8).save(Path(fixed), "scores")
    for file, words, same in ((free, "x:8x3x8x8", False), (free, "x:Bx3x8x8", True), (fixed, "x:8x3x8x8", True)):
        model = load(ModelRef(file, shapes=dict([parse_shape(words)])))
        assert own_bytes(file, model) == (Path(file).read_bytes() if same else None)


def test_a_file_whose_constants_lie_apart_is_not_whole(tmp_path: Path) -> None:
    # In no initializer, but in nodes.
    net = Net()
    net.save(tmp_path / "whole.onnx", net.op("Mul", net.conv("x", 4), net.weight(net.normal(1, 4, 1, 1))))
    proto = onnx.load(tmp_path / "whole.onnx")
    constants = [onnx.helper.make_node("Constant", [], [held.name], value=held) for held in proto.graph.initializer]
    nodes = [*constants, *proto.graph.node]
    for field, kept in (("initializer", []), ("node", nodes)):
        proto.graph.ClearField(field)
        getattr(proto.graph, field).extend(kept)
    whole, apart = tmp_path / "constants.onnx", tmp_path / "apart.onnx"
    onnx.save(proto, whole)
    how = {"save_as_external_data": True, "convert_attribute": True, "size_threshold": 0}
    onnx.save(proto, apart, location="apart.data", **how)
    assert own_bytes(str(whole), load(ModelRef(str(whole)))) == whole.read_bytes()
    assert own_bytes(str(apart), load(ModelRef(str(apart)))) is None
    assert model_size(str(whole)) == whole.stat().st_size
    assert model_size(str(apart)) == apart.stat().st_size + (tmp_path / "apart.data").stat().st_size
