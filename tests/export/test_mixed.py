"""Layers of differing widths, made of one stored file: each is exactly what was trained at its width."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from convkit.compress import parts
from convkit.compress import target as targets
from convkit.compress.budget import parse
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.compress.training.switching import Switch
from convkit.export import exporter, mixed, switched
from convkit.export.mixed import Decision, Decisions
from tests.compress.training.test_quantized import inputs
from tests.compress.training.test_switching import WIDTHS, switch
from tests.compress.training.test_trainable import moved, plan_of


def test_what_only_moves_numbers_is_what_targets_say() -> None:
    rules = [rule for name in parts.names("recipes/targets", ".yaml") for rule in targets.load(name).operators.items()]
    assert {kind for kind, rule in rules if rule.same_range} <= mixed.MOVES


def stored(target: str, network: str = "residual") -> tuple[Switch, onnx.ModelProto, Mapping[str, list[str]]]:
    """A Switch after everything moved, its file, and the layers of each decision."""
    found = switch(network, target)
    moved(found, torch.Generator().manual_seed(2))
    made = exporter.of_engine("onnxruntime")
    files = {bits: made.proto(switched.plain(model), exporter.OPSET) for bits, model in found.settle().items()}
    return found, switched.packed(files), found.members()


@pytest.mark.parametrize(
    ("target", "network"),
    [
        ("onnxruntime-cpu", "residual"),
        ("openvino-cpu", "residual"),
        ("onnxruntime-cpu", "pooled"),
        ("onnxruntime-cpu", "padded"),
    ],
)
def test_every_layer_is_what_was_trained_at_its_width(target: str, network: str) -> None:
    found, file, members = stored(target, network)
    name = plan_of(network, target)[0].inputs[0].name
    (given,) = inputs(16, 3)
    for turn in range(len(WIDTHS)):
        chosen = {group: WIDTHS[(at + turn) % len(WIDTHS)] for at, group in enumerate(members)}
        found.at("8")
        found.mixed({group: str(bits) for group, bits in chosen.items()})
        found.graph.eval()
        with torch.no_grad():
            wanted = found.graph(given)[0].numpy()
        made = mixed.composed(file, {layer: bits for group, bits in chosen.items() for layer in members[group]})
        onnx.checker.check_model(made, full_check=True)
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        got = np.asarray(session.run(None, {name: given.numpy()})[0])
        rows = np.abs(got - wanted).reshape(len(got), -1).max(1) / np.abs(wanted).max()
        assert np.sort(rows)[-3] < 1e-5  # a sum may fall to the other side of a code's edge
        assert rows.max() < 2e-2
        assert made.ByteSize() < 1.2 * switched.narrowed(file, 8).ByteSize()


def test_one_width_for_all_has_the_codes_of_that_width() -> None:
    _, file, members = stored("onnxruntime-cpu")
    layers = [layer for own in members.values() for layer in own]
    for bits in WIDTHS:
        mine, theirs = map(
            _of_layers, (mixed.composed(file, dict.fromkeys(layers, bits)), switched.narrowed(file, bits))
        )
        assert mine == theirs


def _of_layers(file: onnx.ModelProto) -> dict[str, list[object]]:
    """Codes and scales of weights and biases, by who makes numbers of them."""
    held = {one.name: onnx.numpy_helper.to_array(one).tolist() for one in file.graph.initializer}
    nodes = [node for node in file.graph.node if node.name.endswith((".weight", ".bias"))]
    assert len(nodes) == 10
    return {node.name: [held[name] for name in node.input] for node in nodes}


def decided(**loss: tuple[float, ...]) -> Decisions:
    bits = [str(width) for width in WIDTHS]
    of = [
        Decision([name, f"{name}'s"], dict(zip(bits, own, strict=True)), {one: 10.0 * int(one) for one in bits})
        for name, own in loss.items()
    ]
    return Decisions(of, 5.0, 1000.0)


def test_widths_are_those_that_lose_least_within_the_budget() -> None:
    known = decided(flat=(0, 1, 2, 3), steep=(0, 1, 50, 90))
    assert mixed.chosen(known, parse("bops", "<=1x")) == dict.fromkeys(("flat", "flat's", "steep", "steep's"), 8)
    found = mixed.chosen(known, parse("bops", "<=0.085x"))  # 85: eight bits in all, less what is fixed
    assert (found["flat"], found["steep"]) == (2, 6)
    assert found["flat's"] == 2
    with pytest.raises(VerdictError, match="less than its widths can do") as told:
        mixed.chosen(known, parse("bops", "<=0.04x"))
    assert "0.045x" in str(told.value.hint)
    assert set(mixed.chosen(known, parse("bops", "<=0.045x")).values()) == {2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": []}, "nothing to decide"),
        ({"of": [{"layers": ["a"], "loss": {"8": 1}, "bops": {"8": 1}}]}, "other widths"),
        ({"of": [{"layers": ["a"]}]}, "lacks 'loss'"),
        ({"rest": "much"}, "rest"),
        ({"original": 0}, "nothing to decide"),
        ({"more": 1}, "'more'"),
        ({"rest": 1.7e308}, "is no cost"),
        (
            {"of": [{"layers": ["a"], "loss": dict.fromkeys("8642", -1), "bops": dict.fromkeys("8642", 1)}]},
            "is no cost",
        ),
    ],
)
def test_damaged_decisions_are_told(change: dict[str, object], said: str) -> None:
    _, file, _ = stored("onnxruntime-cpu")
    files = {bits: switched.narrowed(file, bits) for bits in WIDTHS}
    told = decided(a=(0, 1, 2, 3)).told()
    whole = switched.packed(files, told)
    assert mixed.decisions(whole) == decided(a=(0, 1, 2, 3))
    with pytest.raises(ConvkitError, match="are damaged") as error:
        mixed.decisions(switched.packed(files, {"decisions": told["decisions"] | change}))
    assert said in str(error.value)
    with pytest.raises(ConvkitError, match="there is no layer 'a'"):
        mixed.composed(whole, {"a": 4})
    with pytest.raises(ConvkitError, match="all of one width"):
        mixed.decisions(file)
