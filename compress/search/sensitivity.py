"""Sensitivity: what each layer costs in each Option, alone, foretold for all at once or measured truly.

Foretold: the layer's own error δ is exact, its kernel run again on rounded numbers; what becomes of it behind the
layer is linearised. For a random probe v one backward pass gives g = ∂(vᵀu)/∂y at every layer's output y, and the mean
of (gᵀδ)² over probes is the squared error that arrives at the outputs' features u (see `loss`); with labels the slope
of the loss adds its own gᵀδ. That is a Gauss-Newton second-order term on the data itself, without a diagonal or a
block of it being taken for the whole. Measured: the network is run from the layer on, all else being as in float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from convkit.compress.errors import ConvkitError
from convkit.compress.factoring import Chains
from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import Plan
from convkit.compress.search import alone
from convkit.compress.search import loss as losses
from convkit.compress.search._trace import Trace, outputs, run
from convkit.compress.search.alone import Site, Values
from convkit.compress.search.loss import Loss
from convkit.compress.target import Target

Losses = dict[str, dict[Option, float]]
"""By layer and Option: relative noise, or the loss by labels more than the float network's. Additive over layers."""
Options = Mapping[str, Sequence[Option]]
Labels = Sequence[Tensor] | None
"""A tensor for each batch, as `Data.labels` has them."""


@dataclass(frozen=True, slots=True)
class Probes:
    """How many random ones a sample is looked at with, and what they are drawn by."""

    count: int = 4
    seed: int = 0


def sensitivity(
    model: Model,
    target: Target,
    plan: Plan,
    options: Options,
    samples: Batches,
    *,
    labels: Labels = None,
    chains: Chains | None = None,
    probes: Probes | None = None,
) -> Losses:
    """Expected loss of every layer alone in each of its options, in one pass over `samples`.

    `model` is prepared, `plan` has a range for every tensor that an activation format rounds, and weights have theirs
    by its rules as `layer_plan` takes them to each option. Without `labels` the loss is the squared distance to the
    float network's outputs over their power, with them their cross-entropy or squared error more than the float's.
    """
    batches, wanted = apart(model, samples, labels)
    loss = loss_of(model, batches, wanted)
    sites = _with_offsets(model, alone.sites(model, target, plan, options, chains), options, batches)
    drawn = probes or Probes()
    generator = torch.Generator().manual_seed(drawn.seed)
    found: Losses = {name: dict.fromkeys(chosen, 0.0) for name, chosen in options.items()}
    for at, batch in enumerate(batches):
        trace = Trace(model, sites.values(), batch, loss)
        trace.probe(at, drawn.count, generator)
        for name, site in sites.items():
            for option, cost in trace.costs(site, options[name]):
                found[name][option] += cost
    return found


def measured(
    model: Model,
    target: Target,
    plan: Plan,
    options: Options,
    samples: Batches,
    *,
    labels: Labels = None,
    chains: Chains | None = None,
    calibration: Batches | None = None,
) -> Losses:
    """The same by simulation: the network is run again from each layer on, for every one of its options.

    `calibration` are the samples that bias correction, where the plan has it, takes its means from (default: the same).
    """
    loss = loss_of(model, samples, labels)
    made = alone.sites(model, target, plan, options, chains)
    sites = _with_offsets(model, made, options, samples if calibration is None else calibration)
    found: Losses = {name: dict.fromkeys(chosen, 0.0) for name, chosen in options.items()}
    with torch.no_grad():
        for at, batch in enumerate(samples):
            values = run(model, batch)
            exact = loss.features(outputs(model, values))
            for name, site in sites.items():
                for option in set(options[name]) - {FLOAT}:
                    got = loss.features(outputs(model, rerun(model, values, site, option)))
                    found[name][option] += loss.excess(got, exact, at)
    return found


def rerun(model: Model, values: Values, site: Site, option: Option) -> Values:
    """What the graph makes with only `site` in `option`: `values` but for what depends on that."""
    lowered = set(site.arguments.values()) if option.activation != FLOAT.activation else set()
    mixed, changed = dict(values), set[fx.Node]()
    for node in model.graph.graph.nodes:
        if node is site.end:
            mixed[node] = site.run(mixed, option, {})
        elif node is not site.node and _computes(node) and not changed.isdisjoint(node.all_input_nodes):
            mixed[node] = alone.compute(node, mixed)
        elif node not in lowered:
            continue
        if node in lowered:
            mixed[node] = site.rounded(node, mixed[node], option.activation)
        changed.add(node)
    return mixed


def _computes(node: fx.Node) -> bool:
    return node.op in ("call_module", "call_function")


def loss_of(model: Model, batches: Batches, labels: Labels) -> Loss:
    """The distance to the float outputs on `batches`, or the loss by their labels."""
    results = [[z for z in model(batch).values() if z.is_floating_point()] for batch in batches]
    if not results or not results[0]:
        raise ConvkitError(f"the sensitivity of {model.name} needs samples and an output in float")
    return losses.distance(results) if labels is None else losses.labelled(results, labels)


def _with_offsets(model: Model, sites: Mapping[str, Site], options: Options, batches: Batches) -> dict[str, Site]:
    """The sites, those that bias correction serves with their mean error on `batches` in each of their options."""
    pairs = [(name, o) for name, site in sites.items() for o in options[name] if site.is_corrected(o)]
    sums: dict[tuple[str, Option], Tensor] = {}
    with torch.no_grad():
        for batch in batches if pairs else ():
            values = run(model, batch)
            for name, option in pairs:
                mean = _mean_error(sites[name], option, values) / len(batches)
                sums[name, option] = sums.get((name, option), torch.zeros(())) + mean
    offsets = {name: {option: sums[name, option].float() for owner, option in pairs if owner == name} for name in sites}
    return {name: replace(site, offsets=offsets[name]) for name, site in sites.items()}


def _mean_error(site: Site, option: Option, values: Values) -> Tensor:
    """Of each channel (axis 1) of what the layer itself makes, float64."""
    off = (site.raw(values, option, site.read(values, option.activation)) - values[site.node]).double()
    mean: Tensor = off.mean([axis for axis in range(off.ndim) if axis != 1])
    return mean


def apart(model: Model, samples: Batches, labels: Labels) -> tuple[Batches, Labels]:
    """Samples one by one where the batch is free: each then counts for itself, and memory stays small."""
    if model.batch is not None or not all(spec.shape for spec in model.inputs):
        return samples, labels
    single: Batches = [dict(zip(batch, rows, strict=True)) for batch in samples for rows in _rows(batch.values())]
    return single, None if labels is None else [row for one in labels for (row,) in _rows([one])]


def _rows(tensors: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Each row of `tensors`, as a batch of one."""
    return zip(*([tensor[i : i + 1] for i in range(len(tensor))] for tensor in tensors), strict=True)
