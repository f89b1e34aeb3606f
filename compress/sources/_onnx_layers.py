"""Operations with constant weights as torch layers: Conv, ConvTranspose, BatchNormalization, Gemm, MatMul."""
# ruff: noqa: PLR2004 - a matrix has 2 dimensions

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from convkit.compress.ops.conv import same_pads
from convkit.compress.sources._onnx_names import weight_owner
from convkit.compress.sources._onnx_operation import Operation

_Make = Mapping[int, Callable[..., nn.Module]]
_CONV: _Make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: _Make = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: _Make = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


class Weights(Protocol):
    """What a layer may ask of the graph it comes from."""

    def known(self, name: str) -> Tensor | None:
        """The value of a constant, None for anything else."""

    def example(self, name: str) -> Tensor:
        """What the tensor is on the sample inputs."""

    def static(self, name: str) -> bool:
        """Whether the tensor has one shape whatever the inputs' free dimensions are."""

    def parameter(self, name: str, role: str = "", change: Callable[[Tensor], Tensor] | None = None) -> nn.Parameter:
        """The constant `name` as a trainable parameter, one for all who ask for it in the same `role`."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A module, the source's name for it ("" if its weights have none) and what must happen to its input."""

    module: nn.Module
    name: str
    pads: tuple[int, ...] = ()
    """ONNX's pads, of the spatial dimensions, which the module itself cannot hold."""
    transposed: bool = False
    """The input is a matrix that has to be transposed first."""


def layer(op: Operation, graph: Weights, bias: str = "") -> Layer | None:
    """The layer that `op` is, or None where only the operator itself can say what it does.

    `bias` is a constant that is added to a MatMul's result.
    """
    kinds = {
        "Conv": _conv,
        "ConvTranspose": _transposed_conv,
        "BatchNormalization": _batch_norm,
        "Gemm": _gemm,
    }
    if op.kind == "MatMul":
        return _matmul(op, graph, bias)
    return kinds[op.kind](op, graph) if op.kind in kinds else None


def _weights(op: Operation, graph: Weights, count: int) -> list[Tensor] | None:
    """The values of inputs 1 to `count`, those that are absent left out; None unless all are floating constants."""
    values = [graph.known(name) for name in op.inputs[1 : count + 1] if name]
    if not values or not op.input(1):
        return None
    return [v for v in values if v is not None and v.is_floating_point()] if _all_float(values) else None


def _all_float(values: list[Tensor | None]) -> bool:
    return all(value is not None and value.is_floating_point() for value in values)


def _named(op: Operation) -> str:
    return next((owner for name in op.inputs[1:] if (owner := weight_owner(name))), "")


def _conv(op: Operation, graph: Weights) -> Layer | None:
    values = _weights(op, graph, 2)
    if values is None or not _fits(op, graph.example(op.inputs[0]), values, channels=1):
        return None
    weight, rank = values[0], values[0].ndim - 2
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads = _pads(op, graph, weight, strides, dilations)
    if pads is None:
        return None
    extra = pads if pads[:rank] != pads[rank:] or min(pads) < 0 else ()
    group = op.attributes.get("group", 1)
    module = _CONV[rank](
        weight.shape[1] * group,
        weight.shape[0],
        weight.shape[2:],
        strides,
        (0,) * rank if extra else pads[:rank],
        dilations,
        group,
        bias=bool(op.input(2)),
        device="meta",
    )
    return Layer(_filled(module, op, graph), _named(op), tuple(extra))


def _transposed_conv(op: Operation, graph: Weights) -> Layer | None:
    values = _weights(op, graph, 2)
    if values is None or not _fits(op, graph.example(op.inputs[0]), values, channels=0):
        return None
    weight, rank = values[0], values[0].ndim - 2
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads, extra = _ints(op, "pads", 2 * rank, 0), _ints(op, "output_padding", rank, 0)
    # torch's layer knows neither SAME nor an output shape, and its output padding stays below the stride.
    plain = op.attributes.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in op.attributes
    small = all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    if not (plain and small and pads[:rank] == pads[rank:] and min(pads) >= 0):
        return None
    group = op.attributes.get("group", 1)
    module = _TRANSPOSED[rank](
        weight.shape[0],
        weight.shape[1] * group,
        weight.shape[2:],
        strides,
        pads[:rank],
        extra,
        group,
        bool(op.input(2)),
        dilations,
        device="meta",
    )
    return Layer(_filled(module, op, graph), _named(op))


def _fits(op: Operation, x: Tensor, values: list[Tensor], channels: int) -> bool:
    """Whether ranks, channels, groups and attributes agree; where not, the operator's own run says what is wrong."""
    weight, rank, group = values[0], values[0].ndim - 2, op.attributes.get("group", 1)
    if rank not in _CONV or x.ndim != weight.ndim or not isinstance(group, int) or group < 1:
        return False
    inside = weight.shape[1] * group if channels == 1 else weight.shape[0]
    outside = weight.shape[0] if channels == 1 else weight.shape[1] * group
    lengths = {"strides": rank, "dilations": rank, "pads": 2 * rank, "output_padding": rank}
    listed = all(len(op.attributes[name]) == n for name, n in lengths.items() if name in op.attributes)
    kernel = list(op.attributes.get("kernel_shape", weight.shape[2:])) == list(weight.shape[2:])
    positive = min([*_ints(op, "strides", rank), *_ints(op, "dilations", rank), *weight.shape]) > 0 if listed else False
    bias = len(values) == 1 or tuple(values[1].shape) == (outside,)
    divides = inside % group == 0 and outside % group == 0
    return listed and kernel and positive and bias and divides and x.shape[1] == inside


def _ints(op: Operation, name: str, count: int, default: int = 1) -> tuple[int, ...]:
    return tuple(op.attributes.get(name) or [default] * count)


def _pads(
    op: Operation, graph: Weights, weight: Tensor, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...] | None:
    """ONNX's pads as numbers; None where `auto_pad` depends on a size that is free."""
    mode, rank = op.attributes.get("auto_pad", "NOTSET"), weight.ndim - 2
    if mode == "NOTSET":
        return _ints(op, "pads", 2 * rank, 0)
    source = op.inputs[0]
    if mode == "VALID":
        return (0,) * 2 * rank
    if max(strides) > 1 and not graph.static(source):
        return None
    return tuple(same_pads(graph.example(source).shape[2:], weight.shape[2:], strides, dilations, mode))


def _filled(module: nn.Module, op: Operation, graph: Weights) -> nn.Module:
    module.weight = graph.parameter(op.inputs[1])
    if op.input(2):
        module.bias = graph.parameter(op.inputs[2])
    return module


def _batch_norm(op: Operation, graph: Weights) -> Layer | None:
    values, x = _weights(op, graph, 4), graph.example(op.inputs[0])
    if values is None or x.ndim not in _BATCH_NORM or any(tuple(v.shape) != (x.shape[1],) for v in values):
        return None
    if len({x.dtype, *(v.dtype for v in values)}) > 1:
        return None
    module = _BATCH_NORM[x.ndim](x.shape[1], eps=op.attributes.get("epsilon", 1e-5), device="meta")
    module.momentum = 1 - op.attributes.get("momentum", 0.9)
    _filled(module, op, graph)
    module.running_mean, module.running_var = values[2].clone(), values[3].clone()
    module.num_batches_tracked = torch.tensor(0)
    return Layer(module.eval(), _named(op))


def _gemm(op: Operation, graph: Weights) -> Layer | None:
    values = _weights(op, graph, 2)
    if values is None or values[0].ndim != 2 or graph.example(op.inputs[0]).ndim != 2:
        return None
    weight = values[0] if op.attributes.get("transB", 0) else values[0].T
    if len(values) > 1 and not _is_bias(values[1], weight.shape[0]):
        return None
    alpha, beta = op.attributes.get("alpha", 1.0), op.attributes.get("beta", 1.0)
    role = f"{'transposed' if op.attributes.get('transB', 0) else 'matrix'}{alpha}"
    module = _linear(graph.parameter(op.inputs[1], role, lambda _: _scaled(weight, alpha)))
    if op.input(2):
        module.bias = graph.parameter(
            op.inputs[2],
            f"bias{beta}x{weight.shape[0]}",
            lambda b: _scaled(b.reshape(-1).expand(weight.shape[0]), beta),
        )
    return Layer(module, _named(op), transposed=bool(op.attributes.get("transA", 0)))


def _is_bias(value: Tensor, size: int) -> bool:
    """Whether adding `value` to [rows, size] adds the same to every row."""
    return value.ndim <= 2 and value.numel() in (1, size) and (value.ndim == 0 or value.shape[-1] == value.numel())


def _scaled(value: Tensor, factor: float) -> Tensor:
    return value.contiguous() if factor == 1.0 else value * factor


def _linear(weight: nn.Parameter) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = weight
    return module


def _matmul(op: Operation, graph: Weights, bias: str) -> Layer | None:
    values = _weights(op, graph, 1)
    if values is None or values[0].ndim != 2 or graph.known(op.inputs[0]) is not None:
        return None
    module = _linear(graph.parameter(op.inputs[1], "matrix1.0", lambda w: w.T.contiguous()))
    if bias:
        module.bias = graph.parameter(bias)
    return Layer(module, weight_owner(op.inputs[1]) or weight_owner(bias))
