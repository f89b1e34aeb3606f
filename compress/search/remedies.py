"""Post-training quantization that watches its own result: each remedy is tried on data held back from calibration until
one gives a network that is as good, and where none does the most sensitive layers go back to float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from convkit.compress import calibration, parts, placement
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.fitting import check_layers, check_model
from convkit.compress.method import Method
from convkit.compress.model import Model
from convkit.compress.option import Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search import space
from convkit.compress.target import Target

Score = Callable[[Model], Mapping[str, float]]
"""Metrics of a simulated network on held-back data, against the float network's outputs."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One way to quantize: what is done to the graph, and which calibrators may choose."""

    name: str
    methods: tuple[str, ...]
    calibrators: tuple[str, ...] | None = None


EXACT = ("simplify", "fold_batch_norm", "merge_parallel")
"""Methods that change no number, and come first."""
REMEDIES = (
    Remedy("measured ranges, bias correction", (*EXACT, "bias_correction")),
    Remedy("balanced channels, measured ranges, bias correction", (*EXACT, "balance_channels", "bias_correction")),
    Remedy("equalized, measured ranges, bias correction", (*EXACT, "equalize", "bias_correction")),
    Remedy("measured ranges", EXACT),
    Remedy("percentile ranges, bias correction", (*EXACT, "bias_correction"), ("percentile",)),
    Remedy("min-max ranges, bias correction", (*EXACT, "bias_correction"), ("minmax",)),
    Remedy("least squares ranges, bias correction", (*EXACT, "bias_correction"), ("mse",)),
)
_ALWAYS = 2
"""Remedies tried even when the first is good already, less those that change nothing: the best of them is kept."""
_FLOAT_STEPS = (0.05, 0.1, 0.2, 0.4, 1.0)
"""Fractions of the layers given back to float, most sensitive first; the last is the float network itself."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A remedy, the plan it made, and how that plan scored."""

    remedy: str
    plan: Plan
    scores: Mapping[str, float]
    good: bool


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be quantized, for what, judged how. `rank` orders scores, `good` says which will do."""

    model: Model
    target: Target
    data: calibration.Calibration
    score: Score
    rank: Callable[[Mapping[str, float]], float]
    good: Callable[[Mapping[str, float]], bool]
    keep: Collection[str] = ()
    remedies: Sequence[Remedy] = REMEDIES
    option: Option | None = None
    """The formats of every layer, where they are not the target's own."""
    of_float: Mapping[str, float] = field(default_factory=dict)
    """What `score` gives the float network itself."""

    def placed(self, model: Model, keep: Collection[str] = ()) -> dict[str, LayerPlan]:
        """Formats for every layer of `model` that the target runs in low precision, less those in `keep`."""
        layers = placement.place(model.graph, self.target, keep)
        if self.option is None:
            return space.with_kernels(model, self.target, layers)
        return space.uniform(model, self.target, layers, self.option)


def attempts(task: Task, known: Mapping[str, Attempt] | None = None) -> Iterator[Attempt]:
    """Attempts in order, each scored; ends after the first that is good once the usual ones were tried.

    The last attempt is always good: with every layer in float it is the network that was given. What is `known`, by
    the name of its remedy, is not tried again.
    """
    known = known or {}
    shown: list[Attempt] = []
    prepared: dict[tuple[str, ...], Model] = {}
    for index, remedy in enumerate(task.remedies):
        if index >= _ALWAYS and any(attempt.good for attempt in shown):
            return
        if _is_another(task, task.remedies[:index], remedy, prepared):
            continue
        shown.append(known.get(remedy.name) or _attempt(task, remedy, prepared))
        yield shown[-1]
    if not any(attempt.good for attempt in shown):
        best = max(shown, key=lambda attempt: task.rank(attempt.scores))
        yield from _with_float_layers(task, best, prepared, known)


def _is_another(task: Task, earlier: Sequence[Remedy], remedy: Remedy, prepared: dict[tuple[str, ...], Model]) -> bool:
    """Whether `remedy` makes what one of the `earlier` made: its methods find nothing to change in this network."""
    alike = [one for one in earlier if one.calibrators == remedy.calibrators and _after(one) == _after(remedy)]
    model = _ready(task, remedy.methods, prepared) if alike else task.model
    return any(_is_same(model, _ready(task, one.methods, prepared)) for one in alike)


def _after(remedy: Remedy) -> list[str]:
    return [name for name in remedy.methods if not _method(name).before]


def _is_same(one: Model, other: Model) -> bool:
    """Whether two prepared networks have the same nodes and numbers."""
    nodes = [[(node.op, str(node.target)) for node in model.graph.graph.nodes] for model in (one, other)]
    held, others = one.graph.state_dict(), other.graph.state_dict()
    return nodes[0] == nodes[1] and all(torch.equal(tensor, others[name]) for name, tensor in held.items())


def given(task: Task, plan: Plan) -> Attempt:
    """A plan that a person wrote or edited, with the ranges it lacks calibrated, and how it scores."""
    return _scored(task, "the plan given", *completed(task, plan))


def completed(task: Task, plan: Plan) -> tuple[Plan, Model]:
    """A plan that a person wrote or edited, with the ranges it lacks calibrated, and the network prepared for it."""
    check_model(task.model, plan)
    model = prepare(task.model, plan.methods, task.data.probe, plan.forms, plan.widths, plan.importance)
    check_layers(model.graph, plan, task.target)
    return calibration.complete(model, task.target, plan, task.data), model


def with_methods(names: Sequence[str]) -> Remedy:
    """The remedy that a person asked for: these methods, behind those that every remedy has. Raises ConvkitError for
    an unknown name.
    """
    asked = dict.fromkeys(names)
    before = [name for name in asked if _method(name).before and name not in EXACT]
    after = [name for name in asked if not _method(name).before]
    return Remedy(", ".join(("measured ranges", *before, *after)), (*EXACT, *before, *after))


def _method(name: str) -> Method:
    found: Method = parts.load("compress/methods", name)
    return found


def best(tried: list[Attempt], rank: Callable[[Mapping[str, float]], float]) -> Attempt:
    """The highest ranked good attempt; the highest ranked of all where none is good."""
    good = [attempt for attempt in tried if attempt.good] or tried
    return max(good, key=lambda attempt: rank(attempt.scores))


def _ready(task: Task, methods: tuple[str, ...], prepared: dict[tuple[str, ...], Model]) -> Model:
    """The prepared model; methods that run after quantization do not change what is prepared."""
    exact = tuple(name for name in methods if _method(name).before)
    if exact not in prepared:
        prepared[exact] = prepare(task.model, exact, task.data.probe)
    return prepared[exact]


def _attempt(task: Task, remedy: Remedy, prepared: dict[tuple[str, ...], Model]) -> Attempt:
    model = _ready(task, remedy.methods, prepared)
    layers = task.placed(model, task.keep)
    layers, ranges = calibration.calibrate(model, task.target, layers, task.data, remedy.calibrators)
    plan = Plan(task.model.digest, task.target.name, remedy.methods, layers, ranges)
    return _scored(task, remedy.name, plan, model)


def _scored(task: Task, name: str, plan: Plan, model: Model) -> Attempt:
    scores = task.score(apply_prepared(model, plan, task.target, task.data.seen_by(plan.methods)))
    return Attempt(name, plan, scores, task.good(scores))


def _with_float_layers(
    task: Task, start: Attempt, prepared: dict[tuple[str, ...], Model], known: Mapping[str, Attempt]
) -> Iterator[Attempt]:
    """`start` with more and more layers in float, those first whose quantization alone costs most."""
    model = _ready(task, start.plan.methods, prepared)
    order = _by_sensitivity(task, start.plan, model)
    for fraction in _FLOAT_STEPS:
        kept = set(order[: max(1, round(fraction * len(order)))])
        layers = task.placed(model, {*task.keep, *kept})
        layers = {name: start.plan.layers.get(name, layer) for name, layer in layers.items()}
        name = f"{start.remedy}; {len(kept)} layers in float"
        attempt = known.get(name) or _scored(task, name, _narrowed(start.plan, layers), model)
        yield attempt
        if attempt.good:
            return


def _narrowed(plan: Plan, layers: Mapping[str, LayerPlan]) -> Plan:
    return replace(plan, layers=dict(layers))


def _by_sensitivity(task: Task, plan: Plan, model: Model) -> list[str]:
    """Layers with weights, by the rank the network scores with that layer alone quantized, worst first.

    Nothing is learned for that: it would take as long again for every layer, and change few ranks.
    """
    plan = replace(plan, methods=tuple(name for name in plan.methods if not _method(name).learns))
    weighted = [name for name, layer in plan.layers.items() if layer.weight is not None]
    ranks = {}
    for name in weighted:
        alone = apply_prepared(model, _narrowed(plan, {name: plan.layers[name]}), task.target, task.data.probe)
        ranks[name] = task.rank(task.score(alone))
    return sorted(weighted, key=lambda name: ranks[name])
