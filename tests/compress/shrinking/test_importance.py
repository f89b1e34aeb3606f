"""Ways by which channels are ranked: each against what it says of itself, and all of them through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress.apply import prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from convkit.compress.shrinking import shrink
from convkit.compress.shrinking.coupling import coupling
from tests.cli.quantizable import samples
from tests.command_line import Convkit
from tests.compress.network import EXACT, Net, batches, residual

NAMES = parts.names(shrink.IMPORTANCE)


def model() -> Model:
    """Two convolutions and a head; of the first one's eight outputs, two read alike and one is tiny."""
    net = Net("N", 3, 8, 8)
    weight = net.normal(8, 3, 3, 3)
    weight[5] = 2 * weight[1]
    weight[6] *= 1e-4
    first = net.op("Relu", net.conv("x", 8, 3, weight=weight))
    net.head(net.op("Relu", net.conv(first, 6, 3)))
    return net.model("scores")


@pytest.mark.parametrize("name", NAMES)
def test_every_channel_that_may_go_is_worth_something(name: str) -> None:
    given = residual().model("scores")
    prepared = prepare(given, EXACT)
    coupled = coupling(prepared.graph)
    found = shrink.worth(name)(prepared, coupled, batches(given))
    assert set(found) == {root for one in coupled.families for root in one.classes}
    assert all(np.isfinite(value) for value in found.values())
    assert max(found.values()) > 0


def ranked(name: str) -> list[int]:
    """The first layer's outputs, that which is worth least first."""
    given = model()
    prepared = prepare(given, EXACT)
    coupled = coupling(prepared.graph)
    found = shrink.worth(name)(prepared, coupled, batches(given))
    family = next(one for one in coupled.families if one.name == "conv0")
    labels = list(family.classes)
    return sorted(range(len(labels)), key=lambda at: found[labels[at]])


def test_a_channel_of_small_filters_goes_first_by_their_norm() -> None:
    assert ranked("norm")[0] == 6


def test_channels_that_read_alike_or_do_nothing_go_first_by_their_filters() -> None:
    assert set(ranked("filters")[:3]) == {1, 5, 6}


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_says_by_what_its_channels_were_ranked(name: str) -> None:
    """And leaves the same ones wherever it is applied."""
    given = model()
    plan = plans.loads(
        plans.dump(plans.Plan(given.digest, "onnxruntime-cpu", EXACT, widths={"conv0": 5}, importance=name))
    )
    assert plan.importance == name
    made = prepare(given, EXACT, batches(given), widths=plan.widths, importance=plan.importance)
    kept = made.graph.get_submodule("conv0").weight
    held = prepare(given, EXACT).graph.get_submodule("conv0").weight
    left = [at for at in range(8) if any(torch.equal(held[at], one) for one in kept)]
    assert left == sorted(set(range(8)) - set(ranked(name)[:3]))


def test_an_importance_that_there_is_not_is_told() -> None:
    text = plans.dump(plans.Plan("m", "onnxruntime-cpu", widths={"conv0": 5}, importance="norm"))
    with pytest.raises(ConvkitError, match="no importance is called 'norms'; did you mean 'norm'"):
        plans.loads(text.replace("importance: norm", "importance: norms"))


@pytest.mark.parametrize("name", NAMES)
def test_the_command_shrinks_by_any_of_them(
    name: str, convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    residual().save(tmp_path / "net.onnx", "scores")
    np.savez(tmp_path / "calib.npz", **samples(24))
    monkeypatch.chdir(tmp_path)
    words = ("--importance", name, "--size", "<=0.8x", "--step", "2", "--max-drop", "100", "--min-sqnr", "-50")
    done = convkit("shrink", "net.onnx", "--data", "calib.npz", *words, "--no-tune", "--budget", "1", "-o", "out")
    assert done.code == 0, done.err
    plan = plans.read(tmp_path / "out/plan.yaml")
    assert plan.widths
    assert plan.importance == name
    assert json.loads((tmp_path / "out/report.json").read_text())["widths"] == dict(plan.widths)
    again = convkit(
        "export", "net.onnx", "--plan", "out/plan.yaml", "--data", "calib.npz", "--target", "onnxruntime", "-o", "same"
    )
    assert again.code == 0, again.err
    assert (tmp_path / "same/model.onnx").read_bytes() == (tmp_path / "out/model.onnx").read_bytes()
