"""What formats run as on a target, said as it is, and what weights take in a file."""

import pytest

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import parts, promotion
from convkit.compress import target as targets
from convkit.compress import weights as weight_formats
from convkit.compress.apply import apply, prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.floating import Floating
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.compress.search import space as spaces
from convkit.export.onnx import size_in_bytes, to_onnx
from tests.compress.network import Net, residual

TARGETS = parts.names("recipes/targets", ".yaml")
every_target = pytest.mark.parametrize("target", TARGETS)
on_cpus = pytest.mark.parametrize("target", [name for name in TARGETS if targets.load(name).activation == "uint8"])
on_gpus = pytest.mark.parametrize("target", [name for name in TARGETS if targets.load(name).activation == "int8"])
ORT, OPENVINO = targets.load("onnxruntime-cpu"), targets.load("openvino-cpu")


@on_cpus
def test_integers_run_in_the_8_bit_kernels_exactly(target: str) -> None:
    for bits in range(2, 9):
        asked = Option(f"int{bits}", "uint8")
        promoted = promotion.promote(asked, targets.load(target))
        assert (promoted.option, promoted.kernel, promoted.saves_time) == (asked, "int8", True)
        filed = "take a byte each in the file" if bits == 7 else "are packed in the file"
        assert promoted.note == (f"int{bits} weights {filed} and run as int8 on {target}." if bits < 8 else "")


@on_cpus
def test_fewer_codes_of_activations_save_nothing(target: str) -> None:
    promoted = promotion.promote(Option("int4", "uint4"), targets.load(target))
    assert promoted.option == Option("int4", "uint8")
    assert promoted.kernel == "int8"
    assert promoted.note.startswith(f"Activations in uint4 run in uint8 on {target}.")


@on_cpus
@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "int16"])
def test_what_has_no_kernel_only_saves_storage(target: str, name: str) -> None:
    promoted = promotion.promote(Option(name, name), targets.load(target))
    assert (promoted.kernel, promoted.saves_time) == ("fp32", False)
    assert promoted.note == f"{name} only saves storage on {target}: {name} computes in fp32."


@on_gpus
@pytest.mark.parametrize("name", ["int8", "fp8_e4m3", "fp16", "bf16"])
def test_what_a_gpu_has_types_for_runs_in_kernels_of_its_own(target: str, name: str) -> None:
    promoted = promotion.promote(Option(name, name), targets.load(target))
    assert (promoted.option, promoted.kernel, promoted.note) == (Option(name, name), name, "")


@on_gpus
@pytest.mark.parametrize("name", ["int2", "int4", "int6"])
def test_weights_of_few_bits_are_codes_of_8_bit_kernels_on_a_gpu(target: str, name: str) -> None:
    promoted = promotion.promote(Option(name, "uint8"), targets.load(target))
    assert (promoted.option, promoted.kernel) == (Option(name, "int8"), "int8")
    assert f"{name} weights take a byte each in the file and run as int8 on {target}." in promoted.note


@on_gpus
@pytest.mark.parametrize("name", ["fp4_e2m1", "e2m1", "e2m2", "e2m3", "e3m1", "e3m2", "e3m3", "e4m1", "e4m2"])
def test_short_floats_are_numbers_of_fp8_kernels_on_a_gpu(target: str, name: str) -> None:
    number, carrier = formats.load(name), formats.load("fp8_e4m3")
    assert isinstance(number, Floating)
    assert isinstance(carrier, Floating)
    assert set(number.magnitudes().tolist()) <= set(carrier.magnitudes().tolist())
    promoted = promotion.promote(Option(name, "fp8_e4m3"), targets.load(target))
    assert (promoted.option, promoted.kernel) == (Option(name, "fp8_e4m3"), "fp8_e4m3")
    assert promoted.note == f"{name} weights take a byte each in the file and run as fp8_e4m3 on {target}."


@on_gpus
@pytest.mark.parametrize(("name", "instead"), [("int16", "fp16"), ("fp8_e5m2", "fp8_e4m3")])
def test_weights_that_a_gpu_has_no_type_for_have_another(target: str, name: str, instead: str) -> None:
    promoted = promotion.promote(Option(name, name), targets.load(target))
    assert promoted.option == Option(instead, instead)
    assert promoted.kernel == instead
    assert f"Weights in {name} run in {instead} on {target}, which lacks the type." in promoted.note


@on_gpus
@pytest.mark.parametrize(("kernel", "fits"), [(5, True), (6, False)])
def test_a_convolution_that_is_too_large_has_no_kernel(target: str, kernel: int, *, fits: bool) -> None:
    net = Net("N", 4, 8, 8)
    model = net.model(net.conv("x", 4, kernel))
    (node,) = graphs.computes(model.graph)
    for name, expected in {"fp8_e4m3": fits, "int8": True}.items():
        assert promotion.has_kernel(node, Option(name, name), targets.load(target)) == expected
    found = spaces.options(model, targets.load(target), ["int8", "fp8_e4m3"])
    assert [str(option) for option in found["conv0"]] == ["fp32", "int8", *(["fp8_e4m3"] if fits else [])]


def test_codes_of_two_kinds_have_no_kernel_where_each_has_one() -> None:
    net = Net("N", 8, 8, 8)
    (node,) = graphs.computes(net.model(net.conv("x", 8, 3)).graph)
    gpu = targets.load("trt-rtx")
    assert not promotion.has_kernel(node, Option("int8", "fp8_e4m3"), gpu)
    assert not promotion.has_kernel(node, Option("fp16", "int8"), gpu)
    assert promotion.has_kernel(node, Option("int4", "int8"), gpu)
    assert promotion.has_kernel(node, Option("int8", "fp8_e4m3"), ORT), "which only saves storage there"


@every_target
@pytest.mark.parametrize("name", ["fp4_e2m1", "e2m3", "e3m4"])
def test_activations_that_no_file_can_hold_stay_float(target: str, name: str) -> None:
    promoted = promotion.promote(Option(name, name), targets.load(target))
    assert promoted.option == Option(name, "fp32")
    assert f"Activations in {name} run in fp32" in promoted.note
    assert f"{name} only saves storage" in promoted.note


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_short_floats_are_a_setting_of_the_whole_network_in_openvino(name: str) -> None:
    assert promotion.promote(Option(name, name), ORT).note == (
        f"{name} only saves storage on onnxruntime-cpu: {name} computes in fp32."
    )
    promoted = promotion.promote(Option(name, name), OPENVINO)
    assert promoted.kernel == name
    assert promoted.note == f"{name} is a setting of the whole network on openvino-cpu: all its float layers run in it."


@every_target
def test_weights_alone_and_mixtures_run_in_float(target: str) -> None:
    for option in (Option("int4", "fp32"), Option("int8", "fp8_e4m3"), Option("bf16", targets.load(target).activation)):
        promoted = promotion.promote(option, targets.load(target))
        assert promoted.kernel == "fp32"
        assert f"{option.weight} only saves storage on {target}: {option} computes in fp32." in promoted.note
    assert promotion.promote(FLOAT, targets.load(target)).note == ""
    assert promotion.promote(FLOAT, targets.load(target)).kernel == "fp32"


@every_target
def test_every_format_is_promoted_to_what_a_file_can_say(target: str) -> None:
    for name in parts.names("compress/formats"):
        promoted = promotion.promote(Option("int8", name), targets.load(target))
        number = formats.load(promoted.option.activation)
        assert number.native or not number.ranged
        assert promotion.promote(promoted.option, targets.load(target)).option == promoted.option


def test_an_unknown_format_is_told() -> None:
    with pytest.raises(ConvkitError, match="no format is called 'int9'; did you mean 'int8'"):
        promotion.promote(Option("int9", "uint8"), ORT)


def test_a_report_says_each_sentence_once() -> None:
    layers = {f"conv{i}": LayerPlan("uint8", "int4") for i in range(3)} | {"add": LayerPlan("uint8")}
    plan = Plan("", ORT.name, (), layers | {"fc": LayerPlan("uint8", "int8")})
    assert promotion.notes(plan, ORT) == ["int4 weights are packed in the file and run as int8 on onnxruntime-cpu."]


GRANULARITIES = {"tensor": 1, "channel": 48, "block:16": 48 * 2 * 9, "block:8": 48 * 4 * 9}


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["int3", "int8", "fp8_e4m3", "fp4_e2m1", "bf16", "e3m4"])
def test_bytes_are_those_of_the_file(name: str, granularity: str) -> None:
    """A few hundred bytes beside: the activations' scales, and what tells how to unpack."""
    if name in ("bf16", "e3m4") and granularity != "channel":
        return
    net = Net("N", 32, 8, 8, seed=1)
    model = prepare(net.model(net.conv("x", 48, 3)), ())
    layer = LayerPlan("uint8", name, granularity=granularity)
    ranges = {"x": Range(-3.0, 3.0, "minmax"), "conv0": Range(-4.0, 4.0, "minmax")}
    made = apply(model, Plan(model.digest, ORT.name, (), {"conv0": layer}, ranges), ORT)
    found = promotion.plan_bytes(model.graph, {"conv0": layer})["conv0"]
    scales = GRANULARITIES[granularity] if formats.load(name).ranged else 0
    assert found == formats.load(name).filed_bytes(48 * 32 * 9, scales) + 48 * 4
    table = 2 ** formats.load(name).bits * 4 if name in ("fp4_e2m1", "e3m4") else 0
    zero_points = scales  # a zero point for each scale, a byte each; the bias of integers has both again
    assert 0 <= size_in_bytes(to_onnx(made)) - found - table <= zero_points + 8 * 48 + 500


def test_bytes_of_a_whole_network() -> None:
    model = prepare(residual().model("scores"), ("simplify", "fold_batch_norm"))
    floats = promotion.plan_bytes(model.graph, {})
    layers = [model.graph.get_submodule(name) for name in floats]
    assert sum(floats.values()) == 4 * sum(p.numel() for layer in layers for p in layer.parameters())
    plan = dict.fromkeys(floats, LayerPlan("uint8", "int4"))
    assert all(found < floats[name] / 2 for name, found in promotion.plan_bytes(model.graph, plan).items())


def test_scales_are_as_many_as_are_made() -> None:
    import torch

    weight = torch.randn(6, 10, 3, 3)
    for granularity in ("tensor", "channel", "block:5", "block:10", "block:2"):
        made = weight_formats.scales(weight, formats.load("int4"), "max", granularity)
        assert promotion.scale_count(weight, granularity) == made.numel()
