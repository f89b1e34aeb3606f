"""A quantized Model as a network that can be trained, with the rounding that it runs with.

Every number that its plan has in a format is rounded to that on the way forward and passed straight through on the way
back, weights from float ones that are kept beside (Jacob et al., CVPR 2018). What was learnt is written into the Model,
as codes, scales and biases, which is exported as any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import behind, layer_rounding, pairs, patches, stored, weights
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress.floating import ExMy
from convkit.compress.lockstep import constant
from convkit.compress.model import Model, clone
from convkit.compress.training import steps
from convkit.compress.training.layers import Layer, Read
from convkit.compress.training.rounded import Bias, Cast, Dequantize, Following, Norm, Quantize, Scale, Weight, bounds
from convkit.compress.training.steps import Units


class Network:
    """A quantized Model as one that can be trained: `graph` computes what it does, and `settle` writes back what was
    learnt. `exact` is the float network that it was made of, prepared as it was."""

    def __init__(self, quantized: Model, exact: Model, *, follow: bool = False, norms: bool = False) -> None:
        self.model, self.exact, self.graph = quantized, exact, clone(quantized.graph)
        self._follow, self._twins = follow, dict(zip(quantized.graph.graph.nodes, self.graph.graph.nodes, strict=True))
        self._floats = {graphs.key(node): node for node in exact.graph.graph.nodes if node.op == "call_module"}
        self._tensors: dict[fx.Node, Read] = {}
        self._numbers = itertools.count()
        for node in quantized.graph.graph.nodes:
            self._round(node)
        self.layers = list(self._made(norms=norms))
        self.graph.graph.eliminate_dead_code()
        self.graph.recompile()
        for parameter in self.graph.parameters():
            parameter.requires_grad_()
        self.train()

    def train(self) -> None:
        """Learn from here on; norms that the network has of its own keep their statistics."""
        self.graph.train()
        for module in self.graph.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - torch's only common class
                module.eval()

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(those of the network, scales)."""
        scales = [module.log for module in self.graph.modules() if isinstance(module, Scale)]
        known = {id(one) for one in scales}
        return [one for one in self.graph.parameters() if id(one) not in known], scales

    def units(self) -> Units:
        """How far its numbers move, beside one of the usual size."""
        return steps.units(self.layers)

    def begin_norms(self, samples: Sequence[tuple[Tensor, ...]]) -> None:
        """Let norms see what convolutions make of `samples`, and begin with it."""
        with torch.no_grad():
            for batch in samples:
                self.graph(*batch)
        self.started()

    def started(self) -> None:
        """Let norms begin with what they saw."""
        for layer in self.layers:
            if layer.norm is not None:
                layer.norm.begin()

    def reads(self) -> dict[str, Read]:
        """Activations that are rounded, by the nodes that do it."""
        return {node.name: one for node, one in self._tensors.items() if graphs.operator(node) != "DequantizeLinear"}

    def roundings(self) -> Iterator[Quantize]:
        """What rounds activations, each once."""
        yield from {id(one): one.rounds for one in self._tensors.values()}.values()

    def settle(self) -> Model:
        """The quantized Model with codes, scales and biases as they were learnt."""
        with torch.no_grad():
            for tensor in {id(one): one for one in self._tensors.values()}.values():
                tensor.write()
            for layer in self.layers:
                layer.write()
            held = dict(self.model.graph.named_parameters())
            for name, parameter in self.graph.named_parameters():
                if name in held:
                    held[name].copy_(parameter)
        return self.model

    def _round(self, node: fx.Node) -> None:
        """In the place of `node`, where it rounds an activation or reads one's codes, what can be trained through."""
        kind, twin = graphs.operator(node), self._twins[node]
        if kind == "QuantizeLinear" or (node.target is ExMy and graphs.constant(node.args[0]) is None):
            self._quantize(node, twin)
        elif kind == "DequantizeLinear" and graphs.constant(node.args[0]) is None:
            tensor = self._tensors[_origin(node)]
            self._tensors[node] = tensor
            tensor.holders.append(node)
            self._put(twin, "dequantize", Dequantize(tensor.rounds), twin.args[0])

    def _quantize(self, node: fx.Node, twin: fx.Node) -> None:
        number, scale, zero = node.meta[pairs.NUMBER], graphs.constant(node.args[1]), _zero(node)
        assert scale is not None  # it is stored  # noqa: S101
        source, clip = twin.args[0], _clip(node)
        if clip is not None:
            source = self._twins[clip].args[0]
        tensor = self._same(node, scale, zero)
        if tensor is None:
            low, high = bounds(number)
            start = Following(scale, low - float(zero), high - float(zero)) if self._follow else Scale(scale)
            tensor = Read(Quantize(number, start, zero))
        self._tensors[node] = tensor
        tensor.holders += [node] if clip is None else [node, clip]
        rounded = self._put(twin, "quantize", tensor.rounds, source)
        if node.target is ExMy:
            self._put(rounded, "dequantize", Dequantize(tensor.rounds), rounded, behind=True)

    def _same(self, node: fx.Node, scale: Tensor, zero: Tensor) -> Read | None:
        """What rounds the tensor that the producer of this one reads, where both have one range: the producer only
        moves numbers, and an engine has it on codes alone if that stays so. Others may have equal ones by chance."""
        producer = node.args[0]
        before = producer.args[0] if isinstance(producer, fx.Node) and producer.args else None
        known = self._tensors.get(before) if isinstance(before, fx.Node) else None
        if known is None or not isinstance(before, fx.Node) or graphs.operator(before) != "DequantizeLinear":
            return None
        if _origin(before).meta.get(pairs.ROOT) != node.meta.get(pairs.ROOT):
            return None
        own = graphs.constant(before.args[1])
        return known if own is not None and torch.equal(own, scale) and torch.equal(_zero(before), zero) else None

    def _made(self, *, norms: bool) -> Iterator[Layer]:
        for node in list(self.model.graph.graph.nodes):
            numbers = node.args[1] if len(node.args) > 1 else None
            if not isinstance(numbers, fx.Node) or weights.FORMAT not in numbers.meta:
                continue
            weight = self._weight(node, numbers)
            biased = stored.bias(node)
            value = None if biased is None else constant(biased).detach().float().clone()
            reads = self._tensors.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            self._put(self._twins[numbers], "weight", weight)
            held = stored.weight(node)
            if norms and value is not None and held is not None and held.by_channel and "Conv" in graphs.operator(node):
                in_codes = biased is not None and graphs.constant(biased) is None
                codes = (
                    (reads.rounds, weight) if reads is not None and in_codes and isinstance(weight, Weight) else None
                )
                yield Layer(node, weight, None, reads, self._normed(node, Norm(value, codes)))
                continue
            bias = None
            if biased is not None and value is not None:
                bias = self._biased(biased, value, weight, reads)
            yield Layer(node, weight, bias, reads, behind=self._behind(node))

    def _behind(self, node: fx.Node) -> nn.Parameter | None:
        """The bias that stands behind a Conv, as one that is learnt; None where none does."""
        value = behind.bias(node)
        if value is None:
            return None
        (total,) = node.users
        bias = nn.Parameter(value.detach().clone())
        held = total.args[1]
        assert isinstance(held, fx.Node)  # noqa: S101 - it gives `value`
        self._give(self._twins[held], bias)
        return bias

    def _biased(self, biased: fx.Node, value: Tensor, weight: Weight | Cast, reads: Read | None) -> nn.Parameter:
        """The bias that the node `biased` gives, in codes where it is stored in them."""
        twin = self._twins[biased]
        if reads is None or isinstance(weight, Cast) or graphs.constant(biased) is not None:
            bias = nn.Parameter(value)
            self._give(twin, bias)
            return bias
        rounds = Bias(value, reads.rounds, weight)
        self._put(twin, "bias", rounds)
        return rounds.bias

    def _weight(self, node: fx.Node, numbers: fx.Node) -> Weight | Cast:
        """The float weight of the layer, where it rounds to what is stored, else that."""
        held, number = stored.weight(node), formats.load(str(numbers.meta[weights.FORMAT]))
        now = constant(numbers).float()
        rows = layer_rounding.float_rows(self._floats[str(node.meta["layer"])], node)
        exact = patches.laid_out(node, rows, now).float()
        if held is None:
            return Cast(number, exact.clone())
        zero = torch.zeros_like(held.scale)
        kept = number.fake(exact, held.scale, zero) == number.fake(now, held.scale, zero)
        scale = graphs.constant(numbers.args[1])
        assert scale is not None  # it is stored  # noqa: S101
        spread: dict[str, Any] = dict(numbers.kwargs) if graphs.operator(numbers) == "DequantizeLinear" else {}
        return Weight(number, torch.where(kept, exact, now), Scale(scale), spread)

    def _normed(self, node: fx.Node, norm: Norm) -> Norm:
        """The norm behind the convolution in place of its bias."""
        twin = self._twins[node]
        twin.args = (*twin.args[:2], None)
        self._put(twin, "norm", norm, twin, behind=True)
        return norm

    def _put(self, twin: fx.Node, name: str, module: nn.Module, *given: Any, behind: bool = False) -> fx.Node:  # noqa: ANN401
        """`module` in place of the node `twin`, or `behind` it, reading what is `given`."""
        place = f"_{name}{next(self._numbers)}"
        self.graph.add_module(place, module)
        with twin.graph.inserting_after(twin):
            node = twin.graph.call_module(place, given)
        node.meta.update(twin.meta)
        twin.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
        if not behind:
            twin.graph.erase_node(twin)
        return node

    def _give(self, twin: fx.Node, parameter: nn.Parameter) -> None:
        """`parameter` in place of the constant `twin`."""
        name = f"_bias{next(self._numbers)}"
        self.graph.register_parameter(name, parameter)
        with twin.graph.inserting_after(twin):
            node = twin.graph.get_attr(name)
        node.meta.update(twin.meta)
        twin.replace_all_uses_with(node)


def _origin(node: fx.Node) -> fx.Node:
    """Who made the codes that `node` reads, through all that only moves them."""
    while graphs.operator(node) != "QuantizeLinear":
        (node, *_) = node.all_input_nodes
    return node


def _zero(node: fx.Node) -> Tensor:
    found = graphs.constant(node.args[2]) if len(node.args) > 2 else None  # noqa: PLR2004 - x, scale, zero point
    return torch.zeros(()) if found is None else found.float()


def _clip(node: fx.Node) -> fx.Node | None:
    """The Clip before `node` that ends its codes, which are fewer than their type has."""
    source = node.args[0]
    found = isinstance(source, fx.Node) and graphs.operator(source) == "Clip" and pairs.NUMBER in source.meta
    return source if found else None  # type: ignore[return-value]
