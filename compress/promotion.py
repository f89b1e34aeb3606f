"""Promotion: what the formats of an Option really run as on a target, and what their weights take in its file.

A kernel exists for few formats. Narrower integers are codes of its own; everything else is dequantized in front of a
float kernel, so that it saves storage and no time. Which is which is the target's data (`formats`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import weights
from convkit.compress.floating import Floating
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.target import Runs, Target

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is asked for runs as `option`, in kernels that compute in `kernel`; `note` is a sentence for the report, ""
    where all is as asked."""

    option: Option
    kernel: str
    note: str = ""

    @property
    def saves_time(self) -> bool:
        """Whether its kernels are others than float32's."""
        return self.kernel != FLOAT.weight


def promote(asked: Option, target: Target) -> Promotion:
    """What `asked` runs as on `target`. Raises ConvkitError for a format that there is none of."""
    name = _runs(asked.weight, target).weight or asked.weight
    option = Option(name, _activation(asked.activation, target))
    speeds = {_runs(name, target).speed for name in (option.weight, option.activation)}
    kernel = speeds.pop() if len(speeds) == 1 else FLOAT.weight
    return Promotion(option, kernel, " ".join(_sentences(asked, option, kernel, target)))


def has_kernel(node: fx.Node, option: Option, target: Target) -> bool:
    """Whether the formats of `option` have a kernel for the layer `node`: they have one of their own together, so has
    its operator, and no convolution is too large or small."""
    found = [_runs(name, target) for name in (option.weight, option.activation)]
    speeds = {runs.speed for runs in found}
    if len(speeds) > 1 and FLOAT.weight not in speeds:
        return False
    rule, module = target.operators.get(graphs.operator(node)), graphs.module(node)
    if rule is not None and rule.formats and not {option.weight, option.activation} <= set(rule.formats):
        return False
    if module is None or not isinstance(module.weight, Tensor):
        return True
    inputs, sizes = module.weight.shape[1], module.weight.shape[2:]
    fits = all(not runs.positions or math.prod(sizes) <= runs.positions for runs in found)
    return fits and not (sizes and math.prod(sizes) == 1 and any(inputs < runs.products for runs in found))


def _runs(name: str, target: Target) -> Runs:
    return target.formats.get(name, Runs())


def _activation(name: str, target: Target) -> str:
    """The format that activations asked for in `name` have: a file can say only those that ONNX has a type for."""
    number, promoted = formats.load(name), _runs(name, target).activation
    if promoted is not None:
        return promoted
    return FLOAT.activation if isinstance(number, Floating) and not number.native else name


def _sentences(asked: Option, option: Option, kernel: str, target: Target) -> Iterator[str]:
    if option.weight != asked.weight:
        overflows = target.overflow is not None and option.weight == target.overflow.weight
        where = (
            "this processor, whose sums they would overflow" if overflows else f"{target.name}, which lacks the type"
        )
        yield f"Weights in {asked.weight} run in {option.weight} on {where}."
    if option.activation != asked.activation:
        yield f"Activations in {asked.activation} run in {option.activation} on {target.name}."
    if kernel == FLOAT.weight:
        if not formats.is_exact(option.weight):
            yield f"{option.weight} only saves storage on {target.name}: {option} computes in {kernel}."
        elif not formats.is_exact(option.activation):
            yield f"{option.activation} saves nothing on {target.name}: {option} computes in {kernel}."
    elif _runs(option.weight, target).whole:
        yield f"{kernel} is a setting of the whole network on {target.name}: all its float layers run in it."
    elif formats.load(option.weight).bits < formats.load(kernel).bits:
        packed = target.packed and formats.load(option.weight).filed_bits < formats.load(kernel).bits
        filed = "are packed in the file" if packed else "take a byte each in the file"
        yield f"{option.weight} weights {filed} and run as {kernel} on {target.name}."


def kernels(plan: Plan, target: Target) -> dict[str, str]:
    """The format that every layer with a weight in `plan` computes in on `target`."""
    return {
        name: promote(Option(layer.weight, layer.activation), target).kernel
        for name, layer in plan.layers.items()
        if layer.weight is not None
    }


def notes(plan: Plan, target: Target) -> list[str]:
    """The sentences on every Option in `plan`, each once."""
    asked = (Option(layer.weight, layer.activation) for layer in plan.layers.values() if layer.weight is not None)
    found = (promote(option, target).note for option in asked)
    return list(dict.fromkeys(note for note in found if note))


def plan_bytes(graph: fx.GraphModule, layers: Mapping[str, LayerPlan], *, packed: bool = True) -> dict[str, int]:
    """Bytes of weight, scales and bias of every layer of `graph` in the formats of `layers`; float32 where they say
    none. `packed`: as the Target has it.

    A weight that several layers share is in the file once as long as they keep it in float.
    """
    found: dict[str, int] = {}
    seen: set[int] = set()
    for node in graphs.computes(graph):
        if node.op == "call_module":
            layer = layers.get(graphs.key(node))
            in_float = layer is None or layer.weight is None
            again = in_float and graphs.weight_id(node) in seen
            found[graphs.key(node)] = 0 if again else layer_bytes(node, layer, packed=packed)
            if in_float:
                seen.add(graphs.weight_id(node))
    return found


def layer_bytes(node: fx.Node, layer: LayerPlan | None, *, packed: bool = True) -> int:
    """Bytes of the layer that `node` calls: its weight in the format of `layer`, `packed` as the Target has it, its
    scales and the rest in float32."""
    module = graphs.module(node)
    assert module is not None  # noqa: S101 - the caller looked
    held = sum(t.numel() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    if layer is None or layer.weight is None:
        return held * _FLOAT_BYTES
    weight = module.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - a layer with a weight format has one
    number = formats.load(layer.weight)
    count = scale_count(weights.by_output(module, weight), layer.granularity)
    return number.filed_bytes(weight.numel(), count, packed=packed) + (held - weight.numel()) * _FLOAT_BYTES


def scale_count(weight: Tensor, granularity: str) -> int:
    """Scales that `weight` [outputs, inputs, ...] has."""
    size = weights.block_size(granularity)
    if not size:
        return 1 if granularity == "tensor" else len(weight)
    return weight.numel() // size
