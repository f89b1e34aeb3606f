"""Calibration: the range of every quantized tensor, each calibrator tried and the one kept whose error at the output of
the layers that read the tensor was measured smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import histogram, parts, placement, weights
from convkit.compress.calibrator import Calibrator
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Format
from convkit.compress.histogram import Histogram
from convkit.compress.method import Samples
from convkit.compress.model import Model
from convkit.compress.placement import Placed
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.compress.target import Target

_TO_LEARN = 4
"""Times the probe that a method learns from, as far as there are samples."""
_TINY = 1e-30
"""Keeps a ratio finite where a layer's output is all zero."""

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
    """The distribution of each node's tensor over all batches. Raises ConvkitError for a tensor that is not finite."""
    wanted, found = set(nodes), dict[fx.Node, Histogram]()

    def watch(node: fx.Node, tensor: Tensor, _: Mapping[fx.Node, Any]) -> None:
        if node in wanted:
            found[node] = _gathered(node, tensor, found.get(node))

    observe(model, batches, watch)
    return found


def _gathered(node: fx.Node, tensor: Tensor, before: Histogram | None) -> Histogram:
    try:
        return histogram.gather(tensor, before)
    except histogram.NotFiniteError as error:
        raise ConvkitError(
            f"tensor {graphs.value(node)!r} is NaN or infinite on the calibration data",
            hint="preprocess the data as the network was trained, or check the network's weights",
        ) from error


@dataclass(frozen=True, slots=True)
class Calibration:
    """Inputs for calibration in batches: `batches` all of them, `probe` the few that errors are measured on.

    `labels`: those of the probe, a tensor a batch, where errors are to be told by labels.
    """

    batches: list[Samples]
    probe: list[Samples]
    labels: list[Tensor] | None = None

    def seen_by(self, methods: Iterable[str]) -> list[Samples]:
        """What `methods` after quantization are told: the probe, or some times as much where one of them learns."""
        learns = any(parts.load("compress/methods", name).learns for name in methods)
        return self.batches[: _TO_LEARN * len(self.probe)] if learns else self.probe


Choice = tuple[float, float]


def candidates(found: Histogram, number: Format, calibrators: Iterable[str]) -> dict[str, Choice]:
    """Range by calibrator; equal ranges stand once, under the first name."""
    ranges: dict[str, Choice] = {}
    for name in calibrators:
        part: Calibrator = parts.load("compress/calibrators", name)
        choice = part.find(found, number)
        if choice not in ranges.values():
            ranges[name] = choice
    return ranges


def calibrate(
    model: Model,
    target: Target,
    layers: Mapping[str, LayerPlan],
    samples: Calibration,
    calibrators: Iterable[str] | None = None,
) -> tuple[dict[str, LayerPlan], dict[str, Range]]:
    """`layers` with the weight range rule chosen for each, and a Range per quantized tensor.

    Distributions come from all batches; the errors that choose among calibrators from the probe.
    """
    placed = [p for p in placement.quantized_tensors(model.graph, target, layers).values() if p.ranged]
    judge = _judged(model, target, layers, {p.root: p for p in placed}, samples, calibrators)
    ranges = judge.ranges()
    return judge.chosen_layers(), {graphs.value(p.node): ranges[p.root] for p in placed}


def complete(model: Model, target: Target, plan: Plan, samples: Calibration) -> Plan:
    """`plan` with a Range for every tensor that it quantizes and has none for: a person or a method added layers."""
    placed = placement.quantized_tensors(model.graph, target, plan.layers).values()
    missing = {p.root: p for p in placed if p.ranged and graphs.value(p.root) not in plan.ranges}
    if not missing:
        return plan
    ranges = _judged(model, target, {}, missing, samples, None).ranges()
    found = {graphs.value(p.node): ranges[p.root] for p in placed if p.root in missing}
    return replace(plan, ranges={**plan.ranges, **found})


def _judged(
    model: Model,
    target: Target,
    layers: Mapping[str, LayerPlan],
    roots: Mapping[fx.Node, Placed],
    samples: Calibration,
    calibrators: Iterable[str] | None,
) -> _Judge:
    found = distributions(model, samples.batches, roots)
    names = list(calibrators) if calibrators is not None else parts.names("compress/calibrators")
    options = {node: candidates(found[node], _ranged(p), names) for node, p in roots.items()}
    judge = _Judge(target, layers, roots, options)
    observe(model, samples.probe, judge.watch)
    return judge


def _ranged(placed: Placed) -> Format:
    """The format that the range of `placed` is chosen for."""
    assert placed.ranged is not None  # noqa: S101 - the caller looked
    return formats.load(placed.ranged)


Errors = dict[str, float]


class _Judge:
    """Sums errors as float runs pass by: each reader is run again on the quantized tensor, alone."""

    def __init__(
        self,
        target: Target,
        layers: Mapping[str, LayerPlan],
        roots: Mapping[fx.Node, Placed],
        options: Mapping[fx.Node, Mapping[str, Choice]],
    ) -> None:
        self._target, self._layers, self._roots, self._options = target, layers, roots, options
        self._range_errors: dict[fx.Node, Errors] = {node: dict.fromkeys(o, 0.0) for node, o in options.items()}
        self._weight_errors: dict[str, Errors] = {}

    def ranges(self) -> dict[fx.Node, Range]:
        """The range with the smallest error, by tensor."""
        best = {node: min(errors, key=errors.__getitem__) for node, errors in self._range_errors.items()}
        return {node: Range(*self._options[node][name], name) for node, name in best.items()}

    def chosen_layers(self) -> dict[str, LayerPlan]:
        """The layers, each with the weight range rule of the smallest error."""
        best = {name: min(errors, key=errors.__getitem__) for name, errors in self._weight_errors.items()}
        return {n: replace(layer, weight_range=best.get(n, layer.weight_range)) for n, layer in self._layers.items()}

    def watch(self, node: fx.Node, tensor: Tensor, alive: Mapping[fx.Node, Any]) -> None:
        """Judge what `node` is: a layer with a weight, a tensor with a range, or neither."""
        layer = self._layers.get(graphs.key(node))
        if layer is not None and layer.weight is not None and node.op == "call_module":
            self._judge_weight(node, layer, formats.load(layer.weight), tensor, alive)
        if node in self._roots and len(self._options[node]) > 1:
            self._judge_range(node, tensor, alive)

    def _judge_range(self, node: fx.Node, tensor: Tensor, alive: Mapping[fx.Node, Any]) -> None:
        number, errors = _ranged(self._roots[node]), self._range_errors[node]
        readers = [reader for reader in _readers(node) if _ready(reader, node, alive)]
        results = [(reader, self._kernel(reader, {**alive, node: tensor})) for reader in readers]
        wanted = [(reader, exact) for reader, exact in results if exact.numel()]
        for name, (low, high) in self._options[node].items():
            scale, zero = number.parameters(torch.tensor(low), torch.tensor(high))
            rounded = number.fake(tensor, scale, zero)
            at_readers = [_relative(self._kernel(r, {**alive, node: rounded}), exact) for r, exact in wanted]
            errors[name] += sum(at_readers) if at_readers else _relative(rounded, tensor)

    def _kernel(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
        result = _run(node, values)
        end = placement.kernel_output(node, self._target)
        return _numbers(result if end is node else _run(end, {**values, node: result}))

    def _judge_weight(
        self, node: fx.Node, layer: LayerPlan, number: Format, wanted: Tensor, alive: Mapping[fx.Node, Any]
    ) -> None:
        module = graphs.module(node)
        assert module is not None  # noqa: S101 - call_module
        assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
        kept, errors = module.weight.data, self._weight_errors.setdefault(graphs.key(node), {})
        rows = weights.by_output(module, kept)
        for rule in weights.rules(number) if number.ranged else ("max",):
            rounded = weights.rounded(rows, number, rule, layer.granularity)
            module.weight.data = weights.by_output(module, rounded)
            errors[rule] = errors.get(rule, 0.0) + _relative(_run(node, alive), wanted)
        module.weight.data = kept


def _readers(node: fx.Node) -> list[fx.Node]:
    """Operators that compute with `node`; a Pad stands for the convolution behind it."""
    return [user for user in node.users if graphs.operator(user) and placement.reads_data(user)]


def _ready(reader: fx.Node, node: fx.Node, alive: Mapping[fx.Node, Any]) -> bool:
    """Whether all other inputs of `reader` are there already (the later of two inputs judges an Add)."""
    return all(other is node or other in alive for other in reader.all_input_nodes)


def _run(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """`node` computed from `values`, constants looked up."""

    def value(argument: fx.Node) -> Any:  # noqa: ANN401 - tensors, or tuples of them
        held = graphs.constant(argument)
        return values[argument] if held is None else held

    arguments = fx.map_arg(node.args, value)
    module = graphs.module(node)
    if module is not None:
        return module(*arguments)
    return node.target(*arguments, **node.kwargs)  # type: ignore[operator]


def _numbers(result: Tensor | Sequence[Tensor]) -> Tensor:
    """All that an operator computed in float, in one row: the parts of a Split, nothing of an ArgMax."""
    tensors = [result] if isinstance(result, Tensor) else result
    return torch.cat([torch.empty(0), *(t.reshape(-1) for t in tensors if t.is_floating_point())])


def _relative(got: Tensor, wanted: Tensor) -> float:
    """Squared error over squared signal."""
    noise, signal = (float(torch.linalg.vector_norm(t)) for t in (got - wanted, wanted))
    return (noise / max(signal, _TINY)) ** 2
