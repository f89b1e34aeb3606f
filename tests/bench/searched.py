"""Formats that are searched while they are trained, on Fashion-MNIST, beside training in one format for all layers."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli import show
from convkit.runtimes.bench.estimate import point
from tests.bench import fashion, product
from tests.bench.limits import Line

NETWORK = ("tests.bench.cifar_networks:wardrobe", "--shape", "input:Nx1x28x28")
LEARNS, FLOAT_EPOCHS, EPOCHS, SEEDS = 20_000, 8, 4, (0, 1, 2)
FORMATS = ("int8/uint8", "int4/uint4", "int2/uint2")
OWN, *_ = DECIDERS = ("fliqs", "hawq", "dnas")
BITS = {name: int(name[3]) for name in FORMATS}
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
    macs = _macs()
    eight = macs * 64
    budgets = {"eight": OF_EIGHT * eight, "four": OF_FOUR * macs * 16}
    found = [_uniform(name, data, output, say) for name in FORMATS]
    searches = {
        (name, by): _searched(name, by, bops, data, output, say) for name, bops in budgets.items() for by in DECIDERS
    }
    rows = [one for one, _ in searches.values()]
    report["searched"] = [asdict(one) for one in (*found, *rows)]
    show.table(
        ["fashion", "bit operations", "top-1", "± of seeds", "training"],
        [
            [one.name, f"{one.bops / eight:.3f}x", f"{one.score:.2f}", f"{statistics.stdev(one.scores):.2f}",
             f"{statistics.median(one.seconds):.0f} s"]
            for one in (*found, *rows)
        ],
    )  # fmt: skip
    by_name = {one.name: one for one in found}
    near, ahead = searches["eight", OWN][0], searches["four", OWN][0]
    yield Line("fashion", f"at {OF_EIGHT:.0%} of eight bits, less eight bits",
               point(near.score - by_name[FORMATS[0]].score), ">=", -APART, "points")  # fmt: skip
    yield Line("fashion", f"at {OF_FOUR:.0%} of four bits, less four bits",
               point(ahead.score - by_name[FORMATS[1]].score), ">=", AHEAD, "points")  # fmt: skip
    for (name, by), (one, told) in searches.items():
        if by != OWN:
            less = searches[name, OWN][0].score - one.score
            yield Line(
                f"fashion, {name}", f"{OWN} less {by}, at equal bit operations", point(less), ">=", 0.0, "points"
            )
            continue
        worst = max(abs(each["cost"] / each["target"] - 1) for each in told)
        yield Line(f"fashion, {name}", "off its bit operations, at most", point(worst), "<=", OFF, "")
        entropy = max(each["entropy"] for each in told) / np.log(len(FORMATS))
        yield Line(f"fashion, {name}", "entropy in the end, of the largest", point(float(entropy)), "<=", ENTROPY, "")
        plain = statistics.median(by_name[FORMATS[0]].seconds)
        slower = statistics.median(one.seconds) / plain
        yield Line(f"fashion, {name}", "time of training over that in eight bits", point(slower), "<=", SLOWER, "x")


def _macs() -> int:
    """Of the network, a sample."""
    from convkit.compress.analysis import analyse
    from convkit.compress.model import ModelRef, parse_shape
    from convkit.compress.sources import factory

    ref = ModelRef(NETWORK[0], shapes=dict([parse_shape(NETWORK[2])]))
    return sum(layer.macs for layer in analyse(factory.from_module(factory.build(ref), ref)).layers)


def _trained(words: Sequence[str], folder: Path, data: Sequence[str], output: Path) -> dict[str, Any]:
    weights = str(output / "float/weights.safetensors")
    how = ["--epochs", str(EPOCHS), "--batch", "128", "--rate", "1e-3", "--norms"]
    product.run(["train", *NETWORK, "--weights", weights, *data, *how, *words, "-o", str(folder)])
    told: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return told


def _uniform(name: str, data: Sequence[str], output: Path, say: Callable[[str], None]) -> Trained:
    say(f"fashion: trained in {name}")
    told = [
        _trained(["--precision", name, "--seed", str(seed)], output / f"uniform{BITS[name]}_{seed}", data, output)
        for seed in SEEDS
    ]
    scores = [one["networks"]["trained"]["metrics"]["top1"] for one in told]
    return Trained(name, scores, _macs() * BITS[name] ** 2, [one["learning_seconds"] for one in told])


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
