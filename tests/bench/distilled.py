"""EfficientNet-Lite0 in four bits: trained by its own outputs in float on photos without labels, beside rounding it.

Weights and activations both: activations are codes of four bits, which save no time on this CPU. No image of ImageNet
is there: 92 photos, several times, and as many of CIFAR-10's training images as a CPU has time for. Rounding is learnt
from the photos, and from them and some of those images. Scored on 235 other photos, and on CIFAR-10's test images,
whose classes it was never told.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli import show
from convkit.compress import plan as plans
from convkit.compress import record
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared
from convkit.compress.method import Batches
from convkit.compress.option import Option
from convkit.export import artifact
from convkit.export.onnx import to_onnx
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.session import Options
from convkit.runtimes.session.isolated import IsolatedSession
from tests.bench import cifar, distillation, rounding, zero_shot
from tests.bench.cases import Case
from tests.bench.comparison import FLOAT, THREADS
from tests.bench.distillation import Learnt
from tests.bench.limits import Line
from tests.bench.searched import NARROW

PRECISION, ENGINE = Option("int4", "uint4"), "onnxruntime"
LEARNT = Learnt(6, 1_200)
NEAREST, LAYERS, BEST = "nearest, sizes of rows kept", "layer by layer", "block by block"
SEEN = 164
"""Images of CIFAR-10 beside the photos, where rounding is learnt on both."""
BOTH = rounding.OF_BOTH.format
ROUNDINGS = (NEAREST, LAYERS, BEST, BOTH(LAYERS), BOTH(BEST))
"""Ways of `rounding`, the last of which training begins with."""
TRAINED = "trained"
IMAGES = 1_000
_BATCH, _SURE = 5, 1.96


@dataclass(frozen=True, slots=True)
class Scored:
    """Percent of photos that get the float network's class, that get an acceptable one, and of CIFAR-10 that is right.

    Rows are kept image by image, for what two networks differ by.
    """

    agreement: np.ndarray
    top1: np.ndarray
    zero_shot: np.ndarray


def lines(case: Case, images: int, say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """A table, and what training gains over the best that rounding reaches, less its error."""
    files = {FLOAT: case.model, **_made(case, say, output / "distilled")}
    scored: dict[str, Scored] = {}
    classes: dict[str, np.ndarray] = {}
    for name, file in files.items():
        say(f"{case.name}: {name} scored")
        classes[name] = _photos(file, case).argmax(1)
        seen = zero_shot.scores(Candidate(name, ENGINE, str(file), Options(threads=THREADS)), min(images, IMAGES))
        right = cifar.predictions(seen) == cifar.images()[1][: len(seen)]
        labels = case.evaluation.labels
        assert labels is not None  # the case has the photos' acceptable classes
        scored[name] = Scored(classes[name] == classes[FLOAT], labels[np.arange(len(labels)), classes[name]], right)
    means = {name: {key: float(row.mean() * 100) for key, row in asdict(one).items()} for name, one in scored.items()}
    report["distilled"] = means
    show.table(
        ["network", "agreement", "top-1", "zero-shot"],
        [[name, *(f"{one[key]:.2f}" for key in ("agreement", "top1", "zero_shot"))] for name, one in means.items()],
    )
    for key, what in (("agreement", "agreement on photos"), ("zero_shot", "zero-shot accuracy")):
        best = max(ROUNDINGS, key=lambda name: means[name][key])
        gained = _gain(getattr(scored[TRAINED], key), getattr(scored[best], key))
        yield Line(f"{case.name}, {PRECISION}", f"{what}, trained less {best}", gained, ">=", 0.0, "points")
        yield Line(f"{case.name}, {PRECISION}", f"{what}, that less its error", point(gained.low), ">=", 0.0, "points")


def _made(case: Case, say: Callable[[str], None], output: Path) -> dict[str, Path]:
    output.mkdir(parents=True, exist_ok=True)
    ((feed, photos),) = case.calibration.items()
    both = np.concatenate([photos, *cifar.unscored(SEEN, photos.shape[-1])])
    both = both[np.random.default_rng(0).permutation(len(both))]
    made = {}
    for name in ROUNDINGS:
        say(f"{case.name}: {name} to {PRECISION}")
        way = next(one for one in rounding.WAYS if name in (one, BOTH(one)))
        folder = output / name.replace(", ", "_").replace(" ", "_")
        made[name] = _rounded(case, rounding.batched(feed, photos if name == way else both), way, folder)
    say(f"{case.name}: trained in {PRECISION}")
    plan = made[ROUNDINGS[-1]].with_name("plan.yaml")
    distillation.trained(case, plan, str(NARROW), LEARNT, output)
    return made | {TRAINED: output / TRAINED / "model.onnx"}


def _rounded(case: Case, batches: Batches, way: str, folder: Path) -> Path:
    """The file of the network, its plan beside it: whether it pays is no question here."""
    target = targets.load(str(NARROW))
    model, plan = rounding.planned(case, target, batches, PRECISION)
    plan = rounding.ruled(plan, *rounding.WAYS[way])
    network = apply_prepared(model, plan, target, batches)
    folder.mkdir(exist_ok=True)
    record.write_text(folder / "plan.yaml", plans.dump(plan))
    record.write_bytes(folder / "model.onnx", artifact.serialized(to_onnx(network, target.opset)))
    return folder / "model.onnx"


def _photos(file: Path, case: Case) -> np.ndarray:
    """Logits [235, 1000]."""
    session = IsolatedSession(ENGINE, str(file), Options(threads=THREADS))
    (feed,), (output,), (images,) = session.inputs, session.outputs, case.evaluation.arrays.values()
    try:
        rows = [session.run({feed.name: images[i : i + _BATCH]})[output.name] for i in range(0, len(images), _BATCH)]
    finally:
        session.close()
    return np.concatenate(rows)


def _gain(one: np.ndarray, other: np.ndarray) -> Interval:
    """Points, with the 95 % interval of the mean of what each image differs by."""
    apart = (one.astype(float) - other.astype(float)) * 100
    mean, half = float(apart.mean()), _SURE * float(apart.std(ddof=1)) / len(apart) ** 0.5
    return Interval(mean, mean - half, mean + half)
