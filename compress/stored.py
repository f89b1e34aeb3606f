"""What a quantized layer holds: its weight's codes and their grid, its bias, to be read and written in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import ops, patches, weights
from convkit.compress.rounding import Grid


@dataclass(frozen=True, slots=True)
class Weight:
    """The weight of the layer `node`: `numbers` gives it from `codes`, which lie as its operator reads them."""

    node: fx.Node
    numbers: fx.Node
    codes: Tensor
    format: formats.Format

    @property
    def scale(self) -> Tensor:
        """The scale as it stands now, which broadcasts over `codes`."""
        return _held(self.numbers)[1]

    def grid(self) -> Grid:
        """The values that its rows [groups, m, k] may take."""
        return Grid(self.format, patches.rows(self.node, self.scale.expand(self.codes.shape)).double())

    @property
    def by_channel(self) -> bool:
        """Whether every output has a scale of its own, and only one."""
        return self._stored_scale().numel() == patches.rows(self.node, self.codes).flatten(0, 1).shape[0]

    def _stored_scale(self) -> Tensor:
        stored = graphs.constant(self.numbers.args[1])
        assert stored is not None  # the scale of codes is stored  # noqa: S101
        return stored

    def rescale(self, factors: Tensor) -> None:
        """Multiply the scales, one an output, by `factors` [m], in weight and bias; the bias keeps its value."""
        stored, numbers, across = self._stored_scale(), bias(self.node), factors.float()
        if numbers is not None and graphs.constant(numbers) is None:
            codes, scale = _held(numbers)
            values = codes.double() * scale.double()
            own = graphs.constant(numbers.args[1])
            assert own is not None  # noqa: S101
            own.mul_(across.reshape(own.shape))
            write_bias(numbers, values)
        stored.mul_(across.reshape(stored.shape))

    def write(self, rows: Tensor) -> None:
        """Store `rows` [groups, m, k], which lie on the grid."""
        values = patches.laid_out(self.node, rows, self.codes)
        scale = self.scale.expand(self.codes.shape).double()
        self.codes.copy_(self.format.codes(values, scale, torch.zeros_like(scale)))


def weight(node: fx.Node) -> Weight | None:
    """The weight of `node`, if it is a layer whose weight is stored in codes that have a scale."""
    numbers = node.args[1] if len(node.args) > 1 else None
    if not isinstance(numbers, fx.Node) or weights.FORMAT not in numbers.meta:
        return None
    number = formats.load(str(numbers.meta[weights.FORMAT]))
    if not number.ranged:
        return None
    return Weight(node, numbers, _held(numbers)[0], number)


def _held(numbers: fx.Node) -> tuple[Tensor, Tensor]:
    """Codes and their scale: a DequantizeLinear's, or those of a cast and a product where ONNX lacks the type."""
    source = numbers.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - the marked node reads stored codes
    if graphs.operator(numbers) == "DequantizeLinear":
        codes, scale = graphs.constant(source), graphs.constant(numbers.args[1])
        assert codes is not None  # noqa: S101
        assert scale is not None  # noqa: S101
        return codes, ops.function("DequantizeLinear")(torch.ones_like(codes), scale, **numbers.kwargs)
    codes, scale = graphs.constant(source.args[0]), graphs.constant(numbers.args[1])
    assert codes is not None  # noqa: S101
    assert scale is not None  # noqa: S101
    return codes, scale


def bias(node: fx.Node) -> fx.Node | None:
    """The node that gives the bias of the layer `node`; a MatMul's stands in the Add behind it."""
    if graphs.operator(node) == "MatMul":
        user = graphs.sole_user(node)
        is_own = user is not None and graphs.operator(user) == "Add" and user.meta.get("layer") == node.meta["layer"]
        found = user.args[1] if user is not None and is_own else None
    else:
        found = node.args[2] if len(node.args) > 2 else None  # noqa: PLR2004 - x, w, b
    return found if isinstance(found, fx.Node) else None


def write_bias(numbers: fx.Node, values: Tensor) -> None:
    """Store `values` [m] as the bias that `numbers` gives: in its codes, or as they are where it is in float."""
    held = graphs.constant(numbers)
    if held is not None:
        held.copy_(values)
        return
    codes, scale = _held(numbers)
    limits = torch.iinfo(codes.dtype)
    codes.copy_(torch.round(values / scale.double()).clamp(limits.min, limits.max))
