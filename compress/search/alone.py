"""One layer alone in an Option: which tensors that rounds, and what the layer's kernel then makes, run again exactly.

A Site is a layer as the target's rules see it: the tensors its kernel reads, the one it writes behind an activation
that runs inside it, and which of them are rounded. Every other reader of a rounded tensor reads it rounded too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import form as forms
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import placement, weights
from convkit.compress.errors import ConvkitError
from convkit.compress.factoring import Chain, Chains
from convkit.compress.format import Format, Integer
from convkit.compress.model import Model
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.compress.search.space import layer_plan
from convkit.compress.target import Rule, Target

Values = Mapping[fx.Node, Any]
"""What the nodes of a graph made: tensors, or tuples of them."""
_CORRECTED = ("Conv", "Gemm")
"""Operators whose mean error bias correction takes off."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A layer's kernel: from the arguments of `node` to `end`, the activation fused into it or `node` itself.

    `arguments` maps each argument that is rounded to the tensor whose Q/DQ pair does it (another one behind a Pad).
    """

    node: fx.Node
    end: fx.Node
    plan: LayerPlan
    arguments: Mapping[fx.Node, fx.Node] = field(default_factory=dict)
    writes: bool = False
    """Whether `end` is rounded."""
    ranges: Mapping[fx.Node, Range | None] = field(default_factory=dict)
    corrects: bool = False
    """Whether bias correction takes the mean error of each channel off where weight and inputs are integers."""
    offsets: Mapping[Option, Tensor] = field(default_factory=dict)
    """Those means, float32 [channels]."""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    """What may stand for the layer, by form."""
    _weights: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @property
    def makes_tensor(self) -> bool:
        """Whether the kernel makes one tensor of numbers, not the parts of one."""
        return graphs.is_float(self.end)

    def read(self, values: Values, activation: str) -> dict[fx.Node, Tensor]:
        """The tensors that are rounded, and the arguments made of them, in the format `activation`."""
        if activation == FLOAT.activation:
            return {}
        found = {tensor: self.rounded(tensor, values[tensor], activation) for tensor in self.arguments.values()}
        moved = [(argument, tensor) for argument, tensor in self.arguments.items() if argument is not tensor]
        return found | {argument: self.rounded(tensor, values[argument], activation) for argument, tensor in moved}

    def others(self, tensor: fx.Node) -> list[fx.Node]:
        """Readers of a rounded tensor beside this kernel; all of them where the kernel makes parts."""
        arguments = [argument for argument, source in self.arguments.items() if source is tensor]
        own = {self.node, *arguments} if self.makes_tensor else set()
        return [user for user in tensor.users if user not in own]

    def run(self, values: Values, option: Option, read: Values) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
        """What `end` is in `option`, given values and what `read` made of them (nothing where they are rounded)."""
        made = self.raw(values, option, read)
        offset = self.offsets.get(option)
        if offset is not None:
            made = made - offset.reshape(-1, *[1] * (made.ndim - 2))
        if self.end is not self.node:
            made = compute(self.end, {**values, self.node: made})
        is_rounded = self.writes and option.activation != FLOAT.activation
        return self.rounded(self.end, made, option.activation) if is_rounded else made

    def raw(self, values: Values, option: Option, read: Values) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
        """What `node` makes in `option`, no mean taken off."""
        return compute(self.node, {**values, **read}, self._parameters(option))

    def is_corrected(self, option: Option) -> bool:
        """Whether bias correction serves the layer in `option`: where codes are added, the bias is a code too."""
        if not self.corrects or FLOAT.weight in (option.weight, option.activation):
            return False
        return all(isinstance(_number(name), Integer) for name in (option.weight, option.activation))

    def rounded(self, tensor: fx.Node, value: Tensor, activation: str) -> Tensor:
        """`value` of `tensor` in the format `activation`, by the tensor's range."""
        number, chosen = _number(activation), self.ranges[tensor]
        low, high = (0.0, 0.0) if chosen is None else (chosen.low, chosen.high)
        return number.fake(value, *number.parameters(torch.tensor(low), torch.tensor(high)))

    def _parameters(self, option: Option) -> dict[str, Tensor]:
        """Those of the layer that are others in `option`; a form is what its chain computes as one."""
        module = graphs.module(self.node)
        if module is None or (option.weight == FLOAT.weight and not option.form):
            return {}
        assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
        key = option.weight, option.form
        if key not in self._weights:
            self._weights[key] = self._merged(option, module.weight) if option.form else self._own(option, module)
        bias = self.chains[option.form].bias if option.form else None
        return {"weight": self._weights[key]} | ({} if bias is None else {"bias": bias.to(module.weight.dtype)})

    def _own(self, option: Option, module: nn.Module) -> Tensor:
        rows = weights.by_output(module, module.weight.detach())  # type: ignore[operator]
        return weights.by_output(module, self._rounded(rows, option)).contiguous()

    def _merged(self, option: Option, weight: Tensor) -> Tensor:
        pieces = [
            replace(piece, weight=self._rounded(piece.weight, option)) for piece in self.chains[option.form].pieces
        ]
        return forms.merged(pieces).reshape(weight.shape).to(weight.dtype)

    def _rounded(self, rows: Tensor, option: Option) -> Tensor:
        """`rows` [outputs, …] as weights in the format of `option`."""
        if option.weight == FLOAT.weight:
            return rows
        plan = layer_plan(self.plan, Option(option.weight, option.weight))
        return weights.rounded(rows, _number(option.weight), plan.weight_range, plan.granularity)


def compute(node: fx.Node, values: Values, parameters: Mapping[str, Tensor] | None = None) -> Any:  # noqa: ANN401
    """`node` computed from `values`, a layer with some of its parameters replaced."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda argument: values[argument])
    module = graphs.module(node)
    if module is None:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    return torch.func.functional_call(module, dict(parameters), args) if parameters else module(*args)


def sites(
    model: Model, target: Target, plan: Plan, options: Mapping[str, Sequence[Option]], chains: Chains | None = None
) -> dict[str, Site]:
    """A Site for each layer that `options` names, ranges and rules from `plan`, forms from `chains`.

    Raises ConvkitError for a layer that the model has not, for activations in the format of an operator that the target
    runs in float only, and where a range is missing.
    """
    found = {graphs.key(node): node for node in graphs.computes(model.graph)}
    unknown = next((name for name in options if name not in found), None)
    if unknown is not None:
        raise ConvkitError(f"there is no layer {unknown!r}", hint="`convkit inspect` lists them")
    known = chains or {}
    made = {name: _site(found[name], target, plan, chosen) for name, chosen in options.items()}
    return {name: replace(site, chains=known.get(name, {})) for name, site in made.items()}


def _site(node: fx.Node, target: Target, plan: Plan, options: Iterable[Option]) -> Site:
    rule, module = target.operators.get(graphs.operator(node)), graphs.module(node)
    layer = plan.layers.get(graphs.key(node), LayerPlan(target.activation, target.weight))
    site = Site(node, placement.kernel_output(node, target), layer)
    lowered = [option.activation for option in options if option.activation != FLOAT.activation]
    if not lowered:
        return site
    if rule is None:
        raise ConvkitError(
            f"{target.name} runs no {graphs.operator(node)} ({graphs.key(node)!r}) in {lowered[0]}",
            hint="leave its activations in float",
        )
    has_bias = rule.bias is not None and module is not None and module.bias is not None
    corrects = has_bias and "bias_correction" in plan.methods and graphs.operator(node) in _CORRECTED
    needs = any(_number(name).ranged for name in lowered)
    return replace(_with_tensors(site, target, rule, plan.ranges, needs=needs), corrects=corrects)


def _with_tensors(site: Site, target: Target, rule: Rule, ranges: Mapping[str, Range], *, needs: bool) -> Site:
    """`site` with the tensors that are rounded; what moves codes in parts only has the one that it reads."""
    tensors = list(placement.data_inputs(site.node, target))
    arguments = [a for a in site.node.args if isinstance(a, fx.Node) and graphs.is_float(a)]
    writes = rule.output == "quantized" and site.makes_tensor
    found = {tensor: ranges.get(graphs.value(tensor)) for tensor in tensors}
    if writes:
        root = tensors[0] if rule.same_range and tensors else site.end
        found[site.end] = ranges.get(graphs.value(site.end)) or ranges.get(graphs.value(root))
    missing = [graphs.value(tensor) for tensor, chosen in found.items() if chosen is None]
    if missing and needs:
        raise ConvkitError(
            f"the plan has no range for tensor {missing[0]!r}", hint="calibrate it with every layer in low precision"
        )
    return replace(site, arguments=dict(zip(arguments, tensors, strict=False)), writes=writes, ranges=found)


@functools.cache
def _number(name: str) -> Format:
    return formats.load(name)
