"""Formats that are searched while they are trained, beside training in one format for all layers.

On Fashion-MNIST, on series of a watch, and on request ResNet-20 on CIFAR-10, behind its training in float: a few epochs
on a CPU, where those of the literature are hundreds on a GPU.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli import show
from convkit.compress import format as formats
from convkit.compress import plan as plans
from convkit.runtimes.bench.estimate import Interval, point
from tests.bench import compressed, product, training_sets
from tests.bench.limits import Line

LEARNS = 20_000
NARROW = Path(__file__).with_name("narrow.yaml")
EIGHT, FOUR, _ = INTEGERS = ("int8/uint8", "int4/uint4", "int2/uint2")
OWN = "fliqs"
OF_EIGHT, OF_FOUR = 0.60, 1.15
"""Bit operations of the two searches, over those of all layers in eight and in four bits."""
APART, AHEAD, OFF, ENTROPY, MORE = 0.3, 1.0, 0.03, 0.05, 1.3
"""Points behind eight bits, ahead of four; of the target; of the largest entropy; time and memory over plain ones."""
BOTH = "trt-rtx"
"""A target that has integers and floats."""
KINDS: Mapping[str, Sequence[str]] = {
    "integers": ("int8", "int4/int8"),
    "floats": ("fp8_e4m3", "fp4_e2m1/fp8_e4m3"),
    "integers and floats": ("int8", "fp8_e4m3", "int4/int8", "fp4_e2m1/fp8_e4m3"),
}
OF_KINDS = 0.60


@dataclass(frozen=True, slots=True)
class Setting:
    """A network with its data, epochs in float and of each training, and who decides within which of two budgets."""

    network: str
    shape: str
    float_epochs: int = 8
    epochs: int = 4
    augment: str = ""
    seeds: Sequence[int] = (0, 1, 2)
    deciders: Mapping[str, Sequence[str]] = field(default_factory=dict)


SETTINGS: Mapping[str, Setting] = {
    "fashion": Setting(
        "tests.bench.cifar_networks:wardrobe",
        "input:Nx1x28x28",
        augment="shift",
        deciders={"eight": (OWN, "hawq"), "four": (OWN, "hawq", "dnas")},
    ),
    "watch": Setting(
        "tests.bench.cifar_networks:wrist",
        "input:Nx6x128",
        float_epochs=20,
        epochs=12,
        deciders={"eight": (OWN,), "four": (OWN,)},
    ),
    "cifar": Setting(
        "tests.bench.cifar_networks:ResNet", "input:Nx3x32x32", seeds=(0, 1), deciders={"four": (OWN, "hawq")}
    ),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training made, by seed: top-1, bit operations, seconds, and the most bytes that the process held."""

    name: str
    scores: Sequence[float]
    bops: float
    seconds: Sequence[float]
    peaks: Sequence[int]

    @property
    def score(self) -> float:
        return statistics.fmean(self.scores)


@dataclass(frozen=True, slots=True)
class Begun:
    """A Setting's files: its weights in float, and its data."""

    setting: Setting
    weights: Path
    output: Path

    @property
    def network(self) -> list[str]:
        return [self.setting.network, "--shape", self.setting.shape]

    @property
    def data(self) -> list[str]:
        return ["--data", str(self.output / "train.npz"), "--validation", str(self.output / "test.npz")]


def lines(name: str, say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """A table, and each of the claims."""
    begun = _begun(name, say, output)
    deciders = begun.setting.deciders
    uniform = {number: _uniform(number, begun, say) for number in (EIGHT, FOUR)}
    eight = uniform[EIGHT].bops
    budgets = {"eight": OF_EIGHT * eight, "four": OF_FOUR * uniform[FOUR].bops}
    searches = {
        (budget, by): _searched(
            f"{by}, {budget}", ["--by", by, *_searching(INTEGERS, budgets[budget], NARROW)], begun, say
        )
        for budget, own in deciders.items()
        for by in own
    }
    rows = [*uniform.values(), *(one for one, _ in searches.values())]
    report["searched"] = [asdict(one) for one in rows]
    _show(name, rows, eight)
    where = f"{name}, {begun.setting.epochs} epochs on a CPU"
    for budget, than, least in (("eight", EIGHT, -APART), ("four", FOUR, AHEAD)):
        if budget in deciders:
            gained = _less(searches[budget, OWN][0], uniform[than])
            part = OF_EIGHT if budget == "eight" else OF_FOUR
            yield Line(where, f"at {part:.0%} of {budget} bits, less {budget} bits", gained, ">=", least, "points")
    for (budget, by), (one, told) in searches.items():
        place = f"{name}, {budget}"
        if by != OWN:
            less = _less(searches[budget, OWN][0], one)
            yield Line(place, f"{OWN} less {by}, at equal bit operations", less, ">=", 0.0, "points")
            continue
        worst = max(abs(each["cost"] / each["target"] - 1) for each in told)
        yield Line(place, "off its bit operations, at most", point(worst), "<=", OFF, "")
        entropy = max(each["entropy"] for each in told) / np.log(len(INTEGERS))
        yield Line(place, "entropy in the end, of the largest", point(float(entropy)), "<=", ENTROPY, "")
        plain = uniform[EIGHT]
        for what, own, other in (("time", one.seconds, plain.seconds), ("memory", one.peaks, plain.peaks)):
            more = statistics.median(own) / statistics.median(other)
            yield Line(place, f"{what} of training over that in eight bits", point(more), "<=", MORE, "x")


def kinds(name: str, say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """Integers and floats chosen among together, beside each kind alone, within the same bit operations."""
    begun = _begun(name, say, output)
    eight = _bops_of(begun, lambda _: ("int8", "int8"))
    found = {
        kind: _searched(kind, _searching(own, OF_KINDS * eight, BOTH), begun, say)[0] for kind, own in KINDS.items()
    }
    report["kinds"] = [asdict(one) for one in found.values()]
    _show(name, list(found.values()), eight)
    *alone, together = found
    for kind in alone:
        less = _less(found[together], found[kind])
        yield Line(f"{name}, {BOTH}", f"{together} less {kind}, at equal bit operations", less, ">=", -APART, "points")


def _begun(name: str, say: Callable[[str], None], output: Path) -> Begun:
    output.mkdir(parents=True, exist_ok=True)
    setting = SETTINGS[name]
    training_sets.save(name, LEARNS, output)
    if name == "cifar":
        return Begun(setting, compressed.trained("resnet", say), output)
    begun = Begun(setting, output / "float/weights.safetensors", output)
    say(f"{name}: trained in float")
    how = ["--epochs", str(setting.float_epochs), "--batch", "128", "--rate", "4e-3"]
    how += ["--augment", setting.augment] if setting.augment else []
    product.run(["train", *begun.network, *begun.data, *how, "-o", str(output / "float")])
    return begun


def _show(name: str, rows: Sequence[Trained], eight: float) -> None:
    show.table(
        [name, "bit operations", "top-1", "± of seeds", "training"],
        [
            [one.name, f"{one.bops / eight:.3f}x", f"{one.score:.2f}", f"{statistics.stdev(one.scores):.2f}",
             f"{statistics.median(one.seconds):.0f} s"]
            for one in rows
        ],
    )  # fmt: skip


def _less(one: Trained, other: Trained) -> Interval:
    """Points that one is ahead, with the 95 % interval by their seeds: Student's, of variances that are alike."""
    from scipy.stats import t

    variances = [statistics.variance(trained.scores) / len(trained.scores) for trained in (one, other)]
    sure = float(t.ppf(0.975, len(one.scores) + len(other.scores) - 2))
    mean, half = one.score - other.score, sure * sum(variances) ** 0.5
    return Interval(mean, mean - half, mean + half)


def _bops(begun: Begun, folder: Path) -> float:
    """Bit operations of the network in `folder`, by the formats that its layers really are in."""
    layers = plans.read(folder / "plan.yaml").layers

    def of(name: str) -> tuple[str, str]:
        own = layers.get(name)
        return ("fp32", "fp32") if own is None else (own.weight or own.activation, own.activation)

    return _bops_of(begun, of)


def _bops_of(begun: Begun, of: Callable[[str], tuple[str, str]]) -> float:
    """With the formats of weights and activations that each layer has."""
    from convkit.compress.analysis import analyse
    from convkit.compress.model import ModelRef, parse_shape
    from convkit.compress.sources import factory

    ref = ModelRef(begun.setting.network, shapes=dict([parse_shape(begun.setting.shape)]))
    total = 0.0
    for layer in analyse(factory.from_module(factory.build(ref), ref)).layers:
        weight, activation = (formats.load(name).bits for name in of(layer.name))
        total += layer.macs * weight * activation
    return total


def _trained(words: Sequence[str], folder: Path, begun: Begun) -> dict[str, Any]:
    how = ["--epochs", str(begun.setting.epochs), "--batch", "128", "--rate", "1e-3", "--norms"]
    model = [*begun.network, "--weights", str(begun.weights)]
    ran = product.run(["train", *model, *begun.data, *how, *words, "-o", str(folder)])
    told: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return told | {"peak": ran.peak}


def _uniform(number: str, begun: Begun, say: Callable[[str], None]) -> Trained:
    say(f"trained in {number}")
    folders = {seed: begun.output / f"uniform_{number.partition('/')[0]}_{seed}" for seed in begun.setting.seeds}
    words = ["--precision", number, "--target", str(NARROW)]
    told = [_trained([*words, "--seed", str(seed)], folder, begun) for seed, folder in folders.items()]
    scores = [one["networks"]["trained"]["metrics"]["top1"] for one in told]
    return Trained(number, scores, _bops(begun, next(iter(folders.values()))), *_took(told))


def _searching(among: Sequence[str], bops: float, target: object) -> list[str]:
    return ["--search", ",".join(among), "--bops", f"<={bops / 1e9:.6f}G", "--target", str(target)]


def _searched(
    name: str, words: Sequence[str], begun: Begun, say: Callable[[str], None]
) -> tuple[Trained, list[dict[str, Any]]]:
    say(f"searched: {name}")
    told = [
        _trained(
            [*words, "--seed", str(seed)], begun.output / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}", begun
        )
        for seed in begun.setting.seeds
    ]
    scores = [one["networks"]["searched"]["metrics"]["top1"] for one in told]
    cost = statistics.fmean(one["searched"]["cost"] for one in told)
    return Trained(name, scores, cost, *_took(told)), [one["searched"] for one in told]


def _took(told: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[int]]:
    return [one["learning_seconds"] for one in told], [one["peak"] for one in told]
