"""Calibration: the range of every quantized tensor, each calibrator tried and the one kept whose error at the output of
the layers that read the tensor was measured smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import histogram, parts, placement, weights
from convkit.compress.calibrator import Calibrator
from convkit.compress.histogram import Histogram
from convkit.compress.method import Samples
from convkit.compress.model import Model
from convkit.compress.placement import Placed
from convkit.compress.plan import LayerPlan, Range
from convkit.compress.target import Target
from torch import Tensor, fx

Watch = Callable[[fx.Node, Tensor, Mapping[fx.Node, Any]], None]


class Observer(fx.Interpreter):
    """Runs a graph and shows every tensor it makes to `watch`, with those still alive."""

    def __init__(self, graph: fx.GraphModule, watch: Watch) -> None:
        super().__init__(graph)
        self._watch = watch

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
        """The node's value, after it was watched."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self._watch(n, result, self.env)
        return result


def observe(model: Model, batches: Iterable[Samples], watch: Watch) -> None:
    """Run `model` on each batch without gradients; `watch` sees every tensor."""
    with torch.no_grad():
        for batch in batches:
            Observer(model.graph, watch).run(*(batch[spec.name] for spec in model.inputs))


def distributions(model: Model, batches: Iterable[Samples], nodes: Iterable[fx.Node]) -> dict[fx.Node, Histogram]:
    """The distribution of each node's tensor over all batches."""
    wanted, found = set(nodes), dict[fx.Node, Histogram]()

    def watch(node: fx.Node, tensor: Tensor, _: Mapping[fx.Node, Any]) -> None:
        if node in wanted:
            found[node] = histogram.gather(tensor, found.get(node))

    observe(model, batches, watch)
    return found


Choice = tuple[float, float]


def candidates(found: Histogram, number: formats.Format, calibrators: Iterable[str]) -> dict[str, Choice]:
    """Range by calibrator; equal ranges stand once, under the first name."""
    ranges: dict[str, Choice] = {}
    for name in calibrators:
        part: Calibrator = parts.load("compress/calibrators", name)
        choice = part.find(found, number)
        if choice not in ranges.values():
            ranges[name] = choice
    return ranges


def calibrate(
    model: Model, target: Target, layers: Mapping[str, LayerPlan], batches: list[Samples], probe: Samples,
    calibrators: Iterable[str] | None = None,
) -> tuple[dict[str, LayerPlan], dict[str, Range]]:
    """`layers` with the weight range rule chosen for each, and a Range per quantized tensor.

    Distributions come from all `batches`; the errors that choose among calibrators from `probe`, a few samples.
    """
    placed = placement.quantized_tensors(model.graph, target, layers)
    roots = {p.root: p for p in placed.values()}
    found = distributions(model, batches, roots)
    names = list(calibrators) if calibrators is not None else parts.names("compress/calibrators")
    options = {node: candidates(found[node], formats.load(p.format), names) for node, p in roots.items()}
    judge = _Judge(target, layers, roots, options)
    observe(model, [probe], judge.watch)
    return judge.layers, {graphs.value(node): judge.ranges[p.root] for node, p in placed.items()}


class _Judge:
    """Chooses ranges as a float run passes by: each reader is run again on the quantized tensor, alone."""

    def __init__(self, target: Target, layers: Mapping[str, LayerPlan], roots: Mapping[fx.Node, Placed],
                 options: Mapping[fx.Node, Mapping[str, Choice]]) -> None:
        self.target, self.layers, self.ranges = target, dict(layers), dict[fx.Node, Range]()
        self._roots, self._options = roots, options

    def watch(self, node: fx.Node, tensor: Tensor, alive: Mapping[fx.Node, Any]) -> None:
        if graphs.key(node) in self.layers and self.layers[graphs.key(node)].weight is not None and node.op == "call_module":
            self._choose_weight(node, tensor, alive)
        if node in self._roots:
            self._choose_range(node, tensor, alive)

    def _choose_range(self, node: fx.Node, tensor: Tensor, alive: Mapping[fx.Node, Any]) -> None:
        number, choices = formats.load(self._roots[node].format), self._options[node]
        readers = [r for r in _readers(node) if _ready(r, node, alive)]
        wanted = [(r, self._kernel(r, {**alive, node: tensor})) for r in readers] if len(choices) > 1 else []
        errors = {}
        for name, (low, high) in choices.items():
            scale, zero = number.parameters(torch.tensor(low), torch.tensor(high))
            rounded = number.fake(tensor, scale, zero)
            at_readers = [_relative(self._kernel(r, {**alive, node: rounded}), exact) for r, exact in wanted]
            errors[name] = sum(at_readers) if at_readers else _relative(rounded, tensor)
        best = min(errors, key=lambda name: errors[name])
        self.ranges[node] = Range(*choices[best], best)

    def _kernel(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
        result = _run(node, values)
        end = placement.kernel_output(node, self.target)
        return result if end is node else _run(end, {**values, node: result})

    def _choose_weight(self, node: fx.Node, wanted: Tensor, alive: Mapping[fx.Node, Any]) -> None:
        layer, module = self.layers[graphs.key(node)], graphs.module(node)
        assert module is not None  # noqa: S101 - call_module
        assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
        assert layer.weight is not None  # noqa: S101 - asked by the caller
        kept, errors = module.weight.data, {}
        for rule in weights.RANGES:
            module.weight.data = weights.rounded(kept, formats.load(layer.weight), rule)
            errors[rule] = _relative(_run(node, alive), wanted)
        module.weight.data = kept
        self.layers[graphs.key(node)] = replace(layer, weight_range=min(errors, key=lambda rule: errors[rule]))


def _readers(node: fx.Node) -> list[fx.Node]:
    """Operators that compute with `node`; a Pad stands for the convolution behind it."""
    return [user for user in node.users if graphs.operator(user) and placement.reads_data(user)]


def _ready(reader: fx.Node, node: fx.Node, alive: Mapping[fx.Node, Any]) -> bool:
    """Whether all other inputs of `reader` are there already (the later of two inputs judges an Add)."""
    return all(other is node or other in alive for other in reader.all_input_nodes)


def _run(node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
    """`node` computed from `values`, constants looked up."""

    def value(argument: fx.Node) -> Any:  # noqa: ANN401 - tensors, or tuples of them
        held = graphs.constant(argument)
        return values[argument] if held is None else held

    arguments = fx.map_arg(node.args, value)
    module = graphs.module(node)
    if module is not None:
        return module(*arguments)  # type: ignore[no-any-return, misc]
    return node.target(*arguments, **node.kwargs)  # type: ignore[no-any-return, operator, misc]


def _relative(got: Tensor, wanted: Tensor) -> float:
    """Squared error over squared signal."""
    energy = float(wanted.double().square().sum())
    return float((got - wanted).double().square().sum()) / max(energy, 1e-30)
