"""Block-wise rounding: its model of the error is the true one to first order, and no block ends worse than it began."""

from dataclasses import replace

import pytest
import torch

from convkit.compress import graph as graphs
from convkit.compress import section as sections
from convkit.compress import stored
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.methods import block_round
from tests.compress.network import EXACT
from tests.compress.test_learned_round import TARGET, made, network, noise


@pytest.mark.parametrize(("name", "weight"), [("sequence", "fp4_e2m1"), ("upscaler", "fp4_e2m1")])
def test_nearer_to_the_float_network_than_layer_by_layer(name: str, weight: str) -> None:
    assert noise(made(name, weight, "block_round"), name) > noise(made(name, weight, "learned_round"), name)


def test_blocks_err_less_on_what_they_learned_from_and_on_what_they_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[list[tuple[float, float]]] = []
    refine = block_round.refine

    def watched(trial: block_round.Trial) -> None:
        before = trial.errors()
        refine(trial)
        errors.append([before, trial.errors()])

    monkeypatch.setattr(block_round, "refine", watched)
    made("sequence", "fp4_e2m1", "block_round")
    made("volume", "int4", "block_round")
    assert len(errors) == 2
    for before, after in errors:
        assert all(one < other for one, other in zip(after, before, strict=True))


def test_slopes_are_those_of_the_squared_error() -> None:
    """Without rounding between the layers the error is smooth: a small change of a weight changes it as foretold."""
    model, plan, samples = network("volume")
    prepared = prepare(model, EXACT, samples)
    layers = {
        name: replace(layer, weight=layer.weight and "int4", activation="fp32")
        for name, layer in plan.layers.items()
        if layer.weight
    }
    graph = apply_prepared(prepared, replace(plan, layers=layers), TARGET).graph
    (section,) = sections.sections(graph, prepared.graph, 3)
    wanted = [prepared(batch)["scores"] for batch in samples]
    trial = block_round.Trial(section, [batch["x"] for batch in samples], wanted, {})
    before = trial.errors()[0]
    first = section.layers[0]
    slopes = trial.slopes(first)
    scale = graphs.constant(first.held.numbers.args[1])
    assert scale is not None
    step = 1e-3
    scale.mul_(1 + step)
    changed = stored.weight(first.held.node)
    assert changed is not None
    foretold = float((slopes["weight"] * first.soft()["weight"]).sum()) * step
    assert (trial.errors()[0] - before) / 2 == pytest.approx(foretold, rel=0.05)


def test_a_layer_without_a_bias_gets_none() -> None:
    for method in ("block_round", "norm_reestimation"):
        model = made("unbiased", "int4", method)
        held = [w for node in model.graph.graph.nodes if (w := stored.weight(node)) is not None]
        assert [stored.bias(weight.node) for weight in held] == [None, None]


def test_torch_is_left_without_gradients() -> None:
    made("sequence", "int4", "block_round")
    assert torch.is_grad_enabled()
