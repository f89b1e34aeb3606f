"""Rounding: EfficientNet-Lite0 with weights in 4 bits and activations in 8, by each way to round; floats and integers.

A weight of 4 bits is one in every layer, or on average: each layer then has between 3 and 6, as the search chooses.
It learns from photos, which tell little of CIFAR's blurred images; then also from photos and images of CIFAR's training
part, which have no labels here and are none of those it is scored on. What is rounded layer by layer so also goes on
to learn from them whole, as `convkit train --plan` does.

Files run in ONNX Runtime. Pairs of products with 4-bit weights stay far within 16 bits, so that no kernel saturates,
whatever instructions the machine has; a few samples are also simulated, to show that this gives the same classes.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from convkit.compress import calibration, placement, record, simulate, weights
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import plan as plans
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.method import Batches
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.option import Option
from convkit.compress.plan import Plan
from convkit.compress.search import budget as budgets
from convkit.compress.search import sensitivity
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost, Problem
from convkit.compress.target import Target
from convkit.export.onnx import to_onnx
from convkit.runtimes.session import Options
from convkit.runtimes.session.isolated import IsolatedSession
from tests.bench import cifar, distillation
from tests.bench.cases import Case
from tests.bench.comparison import FLOAT, THREADS
from tests.bench.distillation import Learnt

TARGET, W4A8 = "onnxruntime-cpu", Option("int4", "uint8")
METHODS = ("simplify", "fold_batch_norm")
LEARN, OTHERS, BATCH, SIMULATED = 92, 164, 16, 8
"""Photos learned from, images of the other kind, how many to a batch, and how many are simulated beside the engine."""
WAYS: Mapping[str, tuple[str, str]] = {
    "nearest, largest magnitude": ("max", "bias_correction"),
    "nearest, least squares": ("mse", "bias_correction"),
    "nearest, sizes of rows kept": ("gain", "bias_correction"),
    "layer by layer": ("gain", "learned_round"),
    "scales too": ("gain", "learned_scale"),
    "block by block": ("gain", "block_round"),
}
"""Rule of the weights' ranges, and the method."""
FIVE, FOUR, MIXED = 5.0, 4.0, ("int3", "int4", "int5", "int6")
"""Bits of a weight on average, and what each layer's may be stored in for that: products of none of these overflow."""
AVERAGED = "{:g} bits on average, layer by layer"
OF_BOTH = "{}, images of both kinds seen"
BOTH_SEEN = ("nearest, sizes of rows kept", "layer by layer")
"""Of WAYS, those that see both kinds, too."""
TRAINED = OF_BOTH.format("layer by layer") + ", then trained"
LEARNT = Learnt(4, 600)
NUMBERS = 100_000
FORMATS = ("int8", "e2m5", "e3m4", "e4m3", "e5m2", "int6", "e2m3", "e3m2", "int4", "e1m2", "e2m1")


@dataclass(frozen=True, slots=True)
class Way:
    """Percent on photos and on CIFAR-10; seconds to round, or to round and train; percent of simulated classes that are
    the engine's, None where none were simulated here.
    """

    top1: float
    agreement: float
    zero_shot: float
    zero_shot_agreement: float
    seconds: float
    same_as_simulated: float | None


@dataclass(frozen=True, slots=True)
class Rounding:
    """Each way to round, float among them, and dB of SQNR by format: of a Gaussian tensor and of its cube."""

    photos: int
    images: int
    ways: Mapping[str, Way]
    sqnr: Mapping[str, tuple[float, float]]


def rounded(case: Case, images: int, say: Callable[[str], None]) -> Rounding:
    """On the scored photos of `case` and the first `images` of CIFAR-10."""
    (feed,) = case.calibration
    samples = case.calibration[feed][:LEARN]
    target = targets.load(TARGET)
    exact = _scores(case.model.read_bytes(), case, images)
    found = {FLOAT: _way(exact, exact, case, 0.0, 100.0)}

    def tell(name: str, model: Model, plan: Plan, batches: Batches) -> None:
        say(f"{case.name} in {W4A8}: {name}")
        started = time.perf_counter()
        network = apply_prepared(model, plan, target, batches)
        seconds = time.perf_counter() - started
        file = bytes(to_onnx(network, target.opset).SerializeToString(deterministic=True))
        scores = _scores(file, case, images)
        found[name] = _way(scores, exact, case, seconds, _same(network, scores[0], case))

    batches = batched(feed, samples)
    model, plan = planned(case, target, batches)
    for name, (rule, method) in WAYS.items():
        tell(name, model, ruled(plan, rule, method), batches)
    for bits in (FIVE, FOUR):
        tell(AVERAGED.format(bits), model, _averaged(model, target, plan, batches, bits), batches)
    both = np.concatenate([samples, *cifar.unscored(OTHERS)])
    batches = batched(feed, both[np.random.default_rng(0).permutation(len(both))])
    model, plan = planned(case, target, batches)
    for name in BOTH_SEEN:
        tell(OF_BOTH.format(name), model, ruled(plan, *WAYS[name]), batches)
    found[TRAINED] = _trained(case, ruled(plan, *WAYS[BOTH_SEEN[-1]]), exact, images, say)
    averaged = _averaged(model, target, plan, batches, FOUR)
    tell(OF_BOTH.format(AVERAGED.format(FOUR)), model, averaged, batches)
    return Rounding(len(exact[0]), images, found, {name: _sqnr(name) for name in FORMATS})


def _trained(case: Case, plan: Plan, exact: "Scores", images: int, say: Callable[[str], None]) -> Way:
    say(f"{case.name} in {W4A8}: {TRAINED}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        record.write_text(folder / "plan.yaml", plans.dump(plan))
        command = distillation.trained(case, folder / "plan.yaml", TARGET, LEARNT, folder)
        scores = _scores((folder / "trained" / "model.onnx").read_bytes(), case, images)
        return _way(scores, exact, case, command.seconds, None)


def batched(feed: str, samples: np.ndarray) -> Batches:
    """Samples, so many at a time as the network's rounding is learnt from."""
    return [{feed: torch.from_numpy(samples[start : start + BATCH])} for start in range(0, len(samples), BATCH)]


def planned(case: Case, target: Target, batches: Batches, option: Option = W4A8) -> tuple[Model, Plan]:
    """The network with all its layers in `option`, and the ranges of its activations."""
    model = load(ModelRef(str(case.model)))
    prepared = prepare(model, METHODS, batches)
    layers = spaces.uniform(prepared, target, placement.place(prepared.graph, target), option)
    layers, ranges = calibration.calibrate(prepared, target, layers, Calibration(batches, batches[:1]))
    return prepared, Plan(model.digest, target.name, METHODS, layers, ranges)


def _averaged(model: Model, target: Target, plan: Plan, batches: Batches, bits: float) -> Plan:
    """The formats of weights that lose least at `bits` on average, by what each is foretold to lose; learned."""
    kept = {name: Option(layer.activation, layer.activation) for name, layer in plan.layers.items() if not layer.weight}
    options = {name: tuple(Option(w, W4A8.activation) for w in MIXED) for name in plan.layers if name not in kept}
    ranged = spaces.with_shared_ranges(model, target, plan)
    found = sensitivity.sensitivity(model, target, ranged, options, batches[:1])
    sizes = {
        graphs.key(node): graphs.module(node).weight.numel()
        for node in graphs.computes(model.graph)
        if graphs.key(node) in options
    }
    costs = {
        name: {o: Cost(found[name][o], bytes=sizes[name] * formats.load(o.weight).bits / 8) for o in known}
        for name, known in options.items()
    }
    choice = budgets.solve(Problem(costs), {"bytes": bits / 8 * sum(sizes.values())})
    assert choice is not None
    layers = {n: spaces.layer_plan(layer, choice.formats.get(n, kept.get(n))) for n, layer in plan.layers.items()}
    return replace(plan, layers=layers, methods=(*METHODS, "learned_round"))


def ruled(plan: Plan, rule: str, method: str) -> Plan:
    """`plan` with weights' ranges by `rule`, rounded by `method`."""
    layers = {name: replace(layer, weight_range=rule) if layer.weight else layer for name, layer in plan.layers.items()}
    return replace(plan, layers=layers, methods=(*METHODS, method))


Scores = tuple[np.ndarray, np.ndarray]
"""Logits of the photos and of the images."""


def _scores(file: bytes, case: Case, images: int) -> Scores:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(file)
        session = IsolatedSession("onnxruntime", str(path), Options(threads=THREADS))
        (feed,), (output,) = session.inputs, session.outputs
        (photos,) = case.evaluation.arrays.values()
        try:
            parts = (photos[start : start + BATCH] for start in range(0, len(photos), BATCH))
            own = [session.run({feed.name: part})[output.name] for part in parts]
            other = [session.run({feed.name: part})[output.name] for part in cifar.batches(batch=BATCH, count=images)]
        finally:
            session.close()
    return np.concatenate(own), np.concatenate(other)


def _way(scores: Scores, exact: Scores, case: Case, seconds: float, same: float | None) -> Way:
    classes, labels = scores[0].argmax(1), case.evaluation.labels
    assert labels is not None
    zero_shot, of_float = cifar.predictions(scores[1]), cifar.predictions(exact[1])
    return Way(
        100 * float(labels[np.arange(len(classes)), classes].mean()),
        100 * float((classes == exact[0].argmax(1)).mean()),
        cifar.accuracy(scores[1]),
        100 * float((zero_shot == of_float).mean()),
        seconds,
        same,
    )


def _same(network: Model, scores: np.ndarray, case: Case) -> float:
    """Percent of the first photos whose simulated class is the engine's."""
    batch = {name: torch.from_numpy(array[:SIMULATED]) for name, array in case.evaluation.arrays.items()}
    with torch.no_grad():
        (logits,) = simulate.integers(network)(batch).values()
    return 100 * float((logits.numpy().argmax(1) == scores[: len(logits)].argmax(1)).mean())


def _sqnr(name: str) -> tuple[float, float]:
    x = torch.randn(1, NUMBERS, generator=torch.Generator().manual_seed(0))
    number = formats.load(name)
    gaussian, heavy = (
        float(10 * torch.log10(t.square().sum() / (weights.rounded(t, number, "mse", "tensor") - t).square().sum()))
        for t in (x, x**3)
    )
    return gaussian, heavy
