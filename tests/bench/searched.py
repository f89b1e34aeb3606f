"""Formats that are searched while they are trained, on Fashion-MNIST, beside training in one format for all layers."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli import show
from convkit.compress import format as formats
from convkit.compress import plan as plans
from convkit.runtimes.bench.estimate import Interval, point
from tests.bench import fashion, product
from tests.bench.limits import Line

NETWORK = ("tests.bench.cifar_networks:wardrobe", "--shape", "input:Nx1x28x28")
LEARNS, FLOAT_EPOCHS, EPOCHS, SEEDS = 20_000, 8, 4, (0, 1, 2)
NARROW = Path(__file__).with_name("narrow.yaml")
EIGHT, FOUR, _ = FORMATS = ("int8/uint8", "int4/uint4", "int2/uint2")
OWN = "fliqs"
DECIDERS = {"eight": (OWN, "hawq"), "four": (OWN, "hawq", "dnas")}
OF_EIGHT, OF_FOUR = 0.60, 1.15
"""Bit operations of the two searches, over those of all layers in eight and in four bits."""
APART, AHEAD, OFF, ENTROPY, SLOWER = 0.3, 1.0, 0.03, 0.05, 1.3
"""Points behind eight bits, ahead of four; of the target; of the largest entropy; time of training over plain one."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training made, by seed: top-1, bit operations over those of eight bits, seconds."""

    name: str
    scores: Sequence[float]
    bops: float
    seconds: Sequence[float]

    @property
    def score(self) -> float:
        return statistics.fmean(self.scores)


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """A table, and each of the claims."""
    output.mkdir(parents=True, exist_ok=True)
    for part, name in (("train", "train"), ("t10k", "test")):
        images, labels = fashion.part(part)
        np.savez(output / f"{name}.npz", input=images[:LEARNS], labels=labels[:LEARNS])
    say("fashion: trained in float")
    data = ["--data", str(output / "train.npz"), "--validation", str(output / "test.npz")]
    how = ["--epochs", str(FLOAT_EPOCHS), "--batch", "128", "--rate", "4e-3", "--augment", "shift"]
    product.run(["train", *NETWORK, *data, *how, "-o", str(output / "float")])
    uniform = {name: _uniform(name, data, output, say) for name in (EIGHT, FOUR)}
    eight = uniform[EIGHT].bops
    budgets = {"eight": OF_EIGHT * eight, "four": OF_FOUR * uniform[FOUR].bops}
    searches = {
        (name, by): _searched(name, by, bops, data, output, say)
        for name, bops in budgets.items()
        for by in DECIDERS[name]
    }
    rows = [*uniform.values(), *(one for one, _ in searches.values())]
    report["searched"] = [asdict(one) for one in rows]
    show.table(
        ["fashion", "bit operations", "top-1", "± of seeds", "training"],
        [
            [one.name, f"{one.bops / eight:.3f}x", f"{one.score:.2f}", f"{statistics.stdev(one.scores):.2f}",
             f"{statistics.median(one.seconds):.0f} s"]
            for one in rows
        ],
    )  # fmt: skip
    near, ahead = searches["eight", OWN][0], searches["four", OWN][0]
    where = f"fashion, {EPOCHS} epochs of {LEARNS:,} images on a CPU"
    yield Line(where, f"at {OF_EIGHT:.0%} of eight bits, less eight bits", _less(near, uniform[EIGHT]), ">=", -APART,
               "points")  # fmt: skip
    yield Line(where, f"at {OF_FOUR:.0%} of four bits, less four bits", _less(ahead, uniform[FOUR]), ">=", AHEAD,
               "points")  # fmt: skip
    for (name, by), (one, told) in searches.items():
        place = f"fashion, {name}"
        if by != OWN:
            less = _less(searches[name, OWN][0], one)
            yield Line(place, f"{OWN} less {by}, at equal bit operations", less, ">=", 0.0, "points")
            continue
        worst = max(abs(each["cost"] / each["target"] - 1) for each in told)
        yield Line(place, "off its bit operations, at most", point(worst), "<=", OFF, "")
        entropy = max(each["entropy"] for each in told) / np.log(len(FORMATS))
        yield Line(place, "entropy in the end, of the largest", point(float(entropy)), "<=", ENTROPY, "")
        slower = statistics.median(one.seconds) / statistics.median(uniform[EIGHT].seconds)
        yield Line(place, "time of training over that in eight bits", point(slower), "<=", SLOWER, "x")


def _less(one: Trained, other: Trained) -> Interval:
    """Points that one is ahead, with the 95 % interval by their seeds."""
    variances = (statistics.variance(trained.scores) / len(trained.scores) for trained in (one, other))
    mean, half = one.score - other.score, _SURE * sum(variances) ** 0.5
    return Interval(mean, mean - half, mean + half)


_SURE = 1.96


def _bops(folder: Path) -> float:
    """Bit operations of the network in `folder`, by the formats that its layers really are in."""
    from convkit.compress.analysis import analyse
    from convkit.compress.model import ModelRef, parse_shape
    from convkit.compress.sources import factory

    ref = ModelRef(NETWORK[0], shapes=dict([parse_shape(NETWORK[2])]))
    layers, total = plans.read(folder / "plan.yaml").layers, 0.0
    for layer in analyse(factory.from_module(factory.build(ref), ref)).layers:
        own = layers.get(layer.name)
        names = ("fp32", "fp32") if own is None else (own.weight or own.activation, own.activation)
        weight, activation = (formats.load(name).bits for name in names)
        total += layer.macs * weight * activation
    return total


def _trained(words: Sequence[str], folder: Path, data: Sequence[str], output: Path) -> dict[str, Any]:
    weights = str(output / "float/weights.safetensors")
    how = ["--epochs", str(EPOCHS), "--batch", "128", "--rate", "1e-3", "--norms", "--target", str(NARROW)]
    product.run(["train", *NETWORK, "--weights", weights, *data, *how, *words, "-o", str(folder)])
    told: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return told


def _uniform(name: str, data: Sequence[str], output: Path, say: Callable[[str], None]) -> Trained:
    say(f"fashion: trained in {name}")
    folders = [output / f"uniform_{name.partition('/')[0]}_{seed}" for seed in SEEDS]
    told = [
        _trained(["--precision", name, "--seed", str(seed)], folder, data, output)
        for seed, folder in zip(SEEDS, folders, strict=True)
    ]
    scores = [one["networks"]["trained"]["metrics"]["top1"] for one in told]
    return Trained(name, scores, _bops(folders[0]), [one["learning_seconds"] for one in told])


def _searched(
    name: str, by: str, bops: float, data: Sequence[str], output: Path, say: Callable[[str], None]
) -> tuple[Trained, list[dict[str, Any]]]:
    say(f"fashion: searched by {by} within {bops / 1e9:.3g} G bit operations")
    words = ["--search", ",".join(FORMATS), "--by", by, "--bops", f"<={bops / 1e9:.6f}G"]
    told = [_trained([*words, "--seed", str(seed)], output / f"{by}_{name}_{seed}", data, output) for seed in SEEDS]
    scores = [one["networks"]["searched"]["metrics"]["top1"] for one in told]
    cost = statistics.fmean(one["searched"]["cost"] for one in told)
    made = Trained(f"{by}, {name}", scores, cost, [one["learning_seconds"] for one in told])
    return made, [one["searched"] for one in told]
