"""Every plan of a small network, built and truly measured, and how far from their front the search's result lies."""

import itertools
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from convkit.cli.building import Builder
from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.calibration import Calibration
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search import sensitivity
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Choice, Cost, Problem
from convkit.compress.search.refine import Measured, Trial, Wish, refine
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import SystemClock
from convkit.runtimes.bench.measure import Settings, Workbench
from convkit.runtimes.bench.measure import measure as compare
from convkit.runtimes.bench.worker import InlineWorker
from convkit.runtimes.latency.measure import Job, measure
from convkit.runtimes.latency.profile import Schedule
from convkit.runtimes.latency.table import edges
from convkit.runtimes.session import Options, open_session
from tests.compress.network import EXACT, Net

PARTS = (0.2, 0.4, 0.6, 0.8)
"""Where the budgets lie between the fastest plan and the float one."""
FORMATS = ("int8", "int4")
ROUNDS, BATCH = 3, 16
_SAMPLES = 4
_TABLE_SHARE, _PLANS_SHARE = 0.2, 2.0
"""Seconds of the latency table, and of all plans, as parts of the budget."""
FLOATING = "float"


@dataclass(frozen=True, slots=True)
class Enumerated:
    """`plans` that there are, and of each budget how far its result lies from the front and how many were measured."""

    plans: int
    excess: tuple[float, ...]
    measured: tuple[int, ...]


Key = tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Small:
    """The network, its plan in INT8, and the options of its layers."""

    builder: Builder
    plan: Plan
    options: spaces.Options
    samples: Mapping[str, torch.Tensor]
    engine: Options

    @property
    def keys(self) -> list[Key]:
        return list(itertools.product(*self.options.values()))

    def plan_of(self, key: Key) -> Plan:
        chosen = dict(zip(self.options, key, strict=True))
        return self.builder.complete(spaces.realised(self.builder.model, self.builder.target, self.plan, chosen))


def excess(own: tuple[float, float], every: Sequence[tuple[float, float]]) -> float:
    """The largest f by which some plan is better at once in loss and in seconds: each times 1 + f is no more than its
    own. Nothing on the true front.
    """
    loss, seconds = own
    return max(0.0, *(min(loss / other if other > 0 else 1.0, seconds / taken) - 1 for other, taken in every))


def small(folder: Path, layers: int, size: int) -> Small:
    """A chain of seeded convolutions of different widths, in ONNX Runtime."""
    net, value = Net("N", 3, size, size), "x"
    for index in range(layers):
        value = net.op("Relu", net.conv(value, (24, 32, 16)[index % 3], (3, 1)[index % 2]))
    target = targets.load("onnxruntime-cpu")
    samples = {"x": torch.randn(_SAMPLES, 3, size, size, generator=torch.Generator().manual_seed(0))}
    model = prepare(net.model(value), EXACT, [samples])
    data = Calibration([samples], [samples])
    placed, ranges = calibration.calibrate(model, target, placement.place(model.graph, target), data, ("minmax",))
    builder = Builder(model, target, data, folder)
    plan = builder.complete(Plan(model.digest, target.name, (), placed, ranges))
    return Small(builder, plan, spaces.options(model, target, FORMATS), samples, Options(threads=1))


def foretold(net: Small, budget: float) -> Problem:
    """The Problem as the search has it: sensitivities, and a latency table of a few builds."""
    builder = net.builder
    ranged = spaces.with_shared_ranges(builder.model, builder.target, net.plan)
    losses = sensitivity.sensitivity(builder.model, builder.target, ranged, net.options, builder.data.probe)

    def write(layers: Mapping[str, LayerPlan]) -> Path:
        known = {name: net.plan.layers.get(name, layer) for name, layer in layers.items()}
        plan = Plan(builder.model.digest, builder.target.name, (), known, net.plan.ranges)
        return builder.file(builder.network(builder.complete(plan)))

    sample = {name: tensor[:1].numpy() for name, tensor in net.samples.items()}
    job = Job(builder.model, builder.target, EXACT, write, net.engine, sample, _opened)
    (table,) = measure([job], Schedule(budget * _TABLE_SHARE))
    rest = Cost(seconds=table.rest)
    times = spaces.Times(table.layers, edges(table))
    return spaces.problem(builder.model, builder.target, net.plan.layers, net.options, losses, times, rest)


def _opened(candidate: Candidate) -> InlineWorker:
    return InlineWorker(open_session(candidate.engine, candidate.path, candidate.options), SystemClock())


def losses_of(net: Small) -> tuple[dict[Key, float], dict[Key, Path]]:
    """Noise of the simulated outputs over their signal, and the file, of every plan."""
    true = _outputs(net, dict.fromkeys(net.options, FLOAT))
    losses, files = {}, {}
    for key in net.keys:
        network = net.builder.network(net.plan_of(key))
        files[key] = net.builder.file(network)
        (made,) = network(net.samples).values()
        losses[key] = float(((made - true) ** 2).sum() / (true**2).sum())
    return losses, files


def _outputs(net: Small, chosen: Mapping[str, Option]) -> torch.Tensor:
    (made,) = net.builder.network(net.plan_of(tuple(chosen.values())))(net.samples).values()
    return made


def ratios_of(net: Small, files: Mapping[Key, Path], budget: float, say: Callable[[str], None]) -> dict[Key, float]:
    """Time over the float network's, of every plan, in batches that are interleaved with it.

    Plans that run in the same kernels take the same time, whatever their weights are stored in: the median of theirs.
    """
    order, whole = list(files), tuple(FLOAT for _ in net.options)
    random.Random(0).shuffle(order)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    found: dict[tuple[str, ...], list[float]] = {}
    for number, keys in enumerate(batches):
        say(f"plans {number * BATCH} of {len(order)}")
        paths = {FLOATING: files[whole]} | {str(index): files[key] for index, key in enumerate(keys)}
        candidates = [Candidate(name, "onnxruntime", str(path), net.engine) for name, path in paths.items()]
        settings = Settings(budget=budget / len(batches), batch=1)
        timed = compare(candidates, FLOATING, None, settings, Workbench(open=_opened))
        for index, key in enumerate(keys):
            found.setdefault(_kernels(key), []).append(timed[str(index)].ratios["p10"].value)
    return {key: 1.0 if key == whole else statistics.median(found[_kernels(key)]) for key in order}


def _kernels(key: Key) -> tuple[str, ...]:
    return tuple(option.activation for option in key)


def run(budget: float, say: Callable[[str], None], layers: int = 6, size: int = 32) -> Enumerated:
    """All plans, then the search for several budgets, whose measurements are those of the plans."""
    with tempfile.TemporaryDirectory() as folder:
        net = small(Path(folder), layers, size)
        say("enumerated: tables")
        problem = foretold(net, budget)
        losses, files = losses_of(net)
        ratios = ratios_of(net, files, budget * _PLANS_SHARE, say)
    return searched(problem, losses, ratios)


def searched(problem: Problem, losses: Mapping[Key, float], ratios: Mapping[Key, float]) -> Enumerated:
    """The search for each budget against the true `losses` and `ratios` of every plan."""
    formats = dict.fromkeys(problem.options, FLOAT)
    whole = Trial(formats, problem.cost(formats), Cost(0.0, problem.cost(formats).seconds))
    second = whole.measured.seconds

    def measured(choices: Sequence[Choice]) -> list[Measured]:
        keys = [tuple(choice.formats.values()) for choice in choices]
        return [Measured(losses[key], ratios[key] * second) for key in keys]

    every = [(losses[key], ratios[key]) for key in losses]
    low, found = min(ratios.values()), []
    for part in PARTS:
        wish = Wish({"seconds": (low + part * (1.0 - low)) * second})
        refined = refine(problem, measured, wish, ROUNDS, [whole])
        best = refined.best.measured
        found.append((excess((best.loss, best.seconds / second), every), len(refined.trials) - 1))
    return Enumerated(len(losses), tuple(own for own, _ in found), tuple(count for _, count in found))
