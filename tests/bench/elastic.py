"""DεpS: what delay and warm-up are worth, beside training all members from the start and the least one alone.

Annavajjala et al., ECCV 2024. Trained by `convkit train --elastic`, scored on test images with norms of their own.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convkit.cli import elastic_training, show
from convkit.compress import code
from convkit.compress.data import Data
from convkit.compress.training import delayed, family
from convkit.compress.training.choice import Space
from convkit.compress.training.elastic import Elastic
from convkit.runtimes.bench.estimate import point
from tests.bench import product, training_sets
from tests.bench.limits import Line

WARM = 1.0
WORK, APART = 0.60, 0.5
"""Of what training everything from the start multiplies; points that the least member may be below itself alone."""
_START = "from the start"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained on how much, how long, with which `delay`; `delays` and `warms` are those of the curves.

    The least delay at which the members of this network cost no more than WORK: they do not grow cheaper with it.
    """

    network: str
    shape: str
    images: int
    epochs: int
    augment: str
    delay: float
    delays: Sequence[float]
    warms: Sequence[float]
    batch: int = 64
    rate: float = 0.1


SETTINGS: Mapping[str, Setting] = {
    "fashion": Setting(
        "tests.bench.cifar_networks:clothes",
        "input:Nx1x28x28",
        8_000,
        10,
        "",
        0.8,
        (0.0, 0.25, 0.5, 0.8),
        (0.0, WARM, 3.0),
    ),
    "cifar": Setting(
        "tests.bench.cifar_networks:short", "input:Nx3x32x32", 50_000, 10, "flip,shift", 0.85, (0.0, 0.85), (WARM,)
    ),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """One training: top-1 of the whole network and of the least member, multiply-accumulates that it took, seconds."""

    delay: float
    warm: float
    whole: float
    least: float
    products: float
    seconds: float


def lines(name: str, say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """A table, curves in `output`, and the claim for the delay of the paper's kind."""
    setting = SETTINGS[name]
    output.mkdir(parents=True, exist_ok=True)
    training_sets.save(name, setting.images, output)
    asked = dict.fromkeys(
        [*((delay, WARM if delay else 0.0) for delay in setting.delays), *((setting.delay, w) for w in setting.warms)]
    )
    found = {}
    for delay, warm in asked:
        say(f"{name}: members from {delay:.0%} of the epochs on, {warm:g} of them to warm up")
        found[delay, warm] = _trained(setting, delay, warm, output)
    say(f"{name}: the least member alone")
    alone = _alone(setting, output)
    report["elastic"] = {"setting": asdict(setting), "trained": [asdict(one) for one in found.values()], "alone": alone}
    start, delayed_one = found[0.0, 0.0], found[setting.delay, WARM]
    rows = [
        [
            _START if not one.delay else f"delayed to {one.delay:.0%}, warm-up {one.warm:g}",
            f"{one.products / start.products:.2f}x",
            f"{one.seconds:.0f} s",
            f"{one.whole:.2f}",
            f"{one.least:.2f}",
        ]
        for one in found.values()
    ]
    show.table(
        ["members", "products", "training", "whole, top-1", "least, top-1"],
        [*rows, ["alone", "", "", "", f"{alone:.2f}"]],
    )
    _curves(output / "delay.png", list(found.values()), alone, setting.delay)
    yield Line(
        name, "least member over training from the start", point(delayed_one.least - start.least), ">=", 0.0, "points"
    )
    yield Line(
        name, "products over training from the start", point(delayed_one.products / start.products), "<=", WORK, "x"
    )
    yield Line(name, "least member over itself alone", point(delayed_one.least - alone), ">=", -APART, "points")


def _trained(setting: Setting, delay: float, warm: float, output: Path) -> Trained:
    folder = _folder(output, delay, warm)
    if not (folder / "report.json").is_file():
        data = ["--data", str(output / "train.npz"), "--validation", str(output / "test.npz"), "--shape", setting.shape]
        how = ["--epochs", str(setting.epochs), "--batch", str(setting.batch), "--rate", str(setting.rate)]
        how += ["--augment", setting.augment] if setting.augment else []
        kinds = ["--elastic", "width,depth", "--delay", str(delay), "--warm", str(warm)]
        product.run(["train", setting.network, *data, *how, *kinds, "-o", str(folder)])
    told = json.loads((folder / "report.json").read_text())
    scores = told["scores"]
    return Trained(delay, warm, scores["whole"], scores["least"], told["products"], told["seconds"])


def _folder(output: Path, delay: float, warm: float) -> Path:
    """Where a training goes; one of other code is none of these."""
    return output / f"delay_{delay:g}_warm_{warm:g}_{code.digest()[:8]}"


def _alone(setting: Setting, output: Path) -> float:
    """Top-1 of the least member as a network of its own, begun anew and trained alike."""
    found = family.read(str(_folder(output, setting.delay, WARM)))
    network = found.elastic.member(found.space.least).network()
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear | nn.modules.batchnorm._BatchNorm):
            layer.reset_parameters()
    with np.load(output / "train.npz") as learns, np.load(output / "test.npz") as judged:
        arrays, labels = (torch.from_numpy(learns["input"]),), torch.from_numpy(learns["labels"]).long()
        test = Data({found.model.inputs[0].name: judged["input"]}, judged["labels"], "")
    from convkit.compress.training import augment

    network.train()
    elastic = Elastic(network, Space({}, (), {}))
    schedule = delayed.Schedule(setting.epochs, setting.batch, setting.rate, delay=1.0, warm=0.0)
    chosen = augment.chained(tuple(setting.augment.split(","))) if setting.augment else None
    for _ in delayed.train(elastic, arrays, labels, schedule, augment=chosen):
        pass
    member = elastic.member(elastic.space.whole)
    member.recalibrate(elastic_training.batches(arrays))
    return elastic_training.top1(member, found.model, test)


def _curves(path: Path, found: Sequence[Trained], alone: float, delay: float) -> None:
    """Top-1 of the least member and of the whole network, over the delay and over the warm-up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    by_delay = sorted((one for one in found if one.warm == (WARM if one.delay else 0.0)), key=lambda one: one.delay)
    by_warm = sorted((one for one in found if one.delay == delay), key=lambda one: one.warm)
    for axes, ones, x, label in (
        (left, by_delay, [one.delay for one in by_delay], "delay (part of the epochs)"),
        (right, by_warm, [one.warm for one in by_warm], "warm-up (epochs)"),
    ):
        axes.plot(x, [one.whole for one in ones], "o-", label="whole network")
        axes.plot(x, [one.least for one in ones], "o-", label="least member")
        axes.axhline(alone, linestyle="--", color="grey", label="least member alone")
        axes.set(xlabel=label, ylabel="top-1 (%)")
        axes.legend()
    figure.savefig(path, dpi=100)
