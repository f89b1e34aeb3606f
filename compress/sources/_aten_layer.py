"""Layers: convolutions, linear and batch norm become modules; the other norms are operators with free parameters."""
# ruff: noqa: PLR0913, PLR0917 - functions take the arguments of aten's schemas

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from convkit.compress.errors import ConvkitError
from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Constant, Operand, per_axis, shape, value

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _path(b: Builder, weight: Constant, suffix: str = "weight") -> str:
    """The layer a weight belongs to, by the weight's own name: `layer1.0.conv1.weight` -> `layer1.0.conv1`."""
    if weight.derived or "." not in weight.name:
        return b.label
    return weight.name.removesuffix(suffix).rstrip("._")


def _parameter(x: Constant | None) -> nn.Parameter | None:
    """The source's own parameter; a buffer used as a weight becomes one that is not trained."""
    if x is None or isinstance(x.tensor, nn.Parameter):
        return None if x is None else x.tensor  # type: ignore[return-value]
    return nn.Parameter(x.tensor, requires_grad=False)


def _install(module: Any, weight: Constant | None, bias: Constant | None) -> nn.Module:  # noqa: ANN401 - any layer
    module.weight, module.bias = _parameter(weight), _parameter(bias)
    return module  # type: ignore[no-any-return]


def _rank(b: Builder, x: Operand, weight: Operand) -> int:
    """Spatial axes. Raises ConvkitError for a tensor without a batch, which torch takes and engines do not."""
    axes = len(shape(weight))
    if len(shape(x)) != axes:
        sizes = "x".join(map(str, shape(x)))
        layer = _path(b, weight) if isinstance(weight, Constant) else b.label
        raise ConvkitError(
            f"layer {layer!r} reads {sizes}, which has no batch",
            hint=f"give shapes with one, such as --shape input:1x{sizes}",
        )
    return axes - 2


def _conv(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Result:
    rank = _rank(b, x, weight)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    if isinstance(padding, str):
        x, padding = _same(b, x, weight, padding, dilation)
    padding = per_axis(padding, rank)
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node):
        pads = [*padding, *padding]
        return b.op("Conv", x, weight, bias, strides=stride, pads=pads, dilations=dilation, group=groups)
    outputs, inputs, *kernel = (int(size) for size in shape(weight))
    with torch.device("meta"):
        module = _CONV[rank](inputs * groups, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return b.call(_path(b, weight), _install(module, weight, bias), x)


def _same(
    b: Builder, x: Operand, weight: Operand, padding: str, dilation: Sequence[int]
) -> tuple[Operand, Sequence[int]]:
    """`padding="same"` as numbers; where it is odd, the extra element is padded behind, as torch does."""
    rank = len(dilation)
    if padding == "valid":
        return x, [0] * rank
    totals = [d * (int(k) - 1) for d, k in zip(dilation, shape(weight)[2:], strict=True)]
    if all(total % 2 == 0 for total in totals):
        return x, [total // 2 for total in totals]
    ends = [total - total // 2 for total in totals]
    pads = b.integers(0, 0, *(total // 2 for total in totals), 0, 0, *ends)
    return b.op("Pad", x, pads), [0] * rank


def _conv_transpose(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Result:
    rank = _rank(b, x, weight)
    stride, padding, extra, dilation = (per_axis(v, rank) for v in (stride, padding, output_padding, dilation))
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node):
        pads = [*padding, *padding]
        options: dict[str, object] = {
            "strides": stride,
            "pads": pads,
            "output_padding": extra,
            "dilations": dilation,
            "group": groups,
        }
        return b.op("ConvTranspose", x, weight, bias, **options)
    inputs, outputs, *kernel = (int(size) for size in shape(weight))
    with torch.device("meta"):
        module = _TRANSPOSED[rank](inputs, outputs * groups, kernel, stride, padding, extra, groups, False, dilation)
    return b.call(_path(b, weight), _install(module, weight, bias), x)


def _convolution(
    b: Builder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: object,
) -> Result:
    if transposed:
        return _conv_transpose(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(b, x, weight, bias, stride, padding, dilation, groups)


def _linear(b: Builder, x: Operand, weight: Operand, bias: Operand | None = None) -> Result:
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node):
        y = b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))
        return y if bias is None else b.op("Add", y, bias)
    outputs, inputs = (int(size) for size in shape(weight))
    with torch.device("meta"):
        module = nn.Linear(inputs, outputs, bias=False)
    return b.call(_path(b, weight), _install(module, weight, bias), x)


def _batch_norm(
    b: Builder,
    x: Operand,
    weight: Constant | None,
    bias: Constant | None,
    mean: Constant | None,
    var: Constant | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> Result:
    if training or mean is None or var is None:
        return _batch_norm_training(b)
    if any(isinstance(x, fx.Node) for x in (weight, bias, mean, var)):
        raise b.refuse("a batch norm whose parameters depend on the input")
    with torch.device("meta"):
        module = _BATCH_NORM[len(shape(x))](len(mean.tensor), eps, momentum, affine=False)
    module.running_mean, module.running_var = mean.tensor, var.tensor
    module.num_batches_tracked, module.affine = torch.tensor(0), weight is not None
    return b.call(_path(b, mean, "running_mean"), _install(module, weight, bias), x)


def _batch_norm_training(b: Builder, *_: object) -> Result:
    raise ConvkitError(
        f"batch norm in layer {b.layer!r} normalizes by the batch itself",
        hint="call model.eval() before export, and keep track_running_stats=True",
    )


def _batch_norm_inference(b: Builder, *arguments: Any) -> Result:  # noqa: ANN401 - handed on
    """`_native_batch_norm_legit_no_training` returns the saved statistics too, which nobody reads."""
    *tensors, momentum, eps = arguments
    result = _batch_norm(b, *tensors, False, momentum, eps)
    assert not isinstance(result, tuple)  # noqa: S101 - for the type checker
    return (result,)


def _affine(b: Builder, x: Operand, given: Operand | None, fill: float, sizes: Sequence[int]) -> Operand:
    """A norm's scale or bias; ONNX has no norm without one."""
    return (
        given
        if given is not None
        else b.constant(torch.full([b.fixed(size) for size in sizes], fill).tolist(), value(x).dtype)
    )


def _layer_norm(
    b: Builder,
    x: Operand,
    sizes: Sequence[int],
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
    *_: object,
) -> Result:
    scale = _affine(b, x, weight, 1.0, sizes)
    return b.op("LayerNormalization", x, scale, bias, axis=-len(sizes), epsilon=eps)


def _group_norm(
    b: Builder, x: Operand, groups: int, weight: Operand | None, bias: Operand | None, eps: float, *_: object
) -> Result:
    channels = [b.fixed(shape(x)[1])]
    scale, offset = _affine(b, x, weight, 1.0, channels), _affine(b, x, bias, 0.0, channels)
    return b.op("GroupNormalization", x, scale, offset, num_groups=groups, epsilon=eps)


def _instance_norm(
    b: Builder,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mean: Operand | None,
    var: Operand | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> Result:
    if not use_input_stats:
        return _batch_norm(b, x, weight, bias, mean, var, False, momentum, eps)  # type: ignore[arg-type]
    channels = [b.fixed(shape(x)[1])]
    scale, offset = _affine(b, x, weight, 1.0, channels), _affine(b, x, bias, 0.0, channels)
    return b.op("InstanceNormalization", x, scale, offset, epsilon=eps)


def _rms_norm(b: Builder, x: Operand, sizes: Sequence[int], weight: Operand | None, eps: float | None) -> Result:
    """x · rsqrt(mean(x²) + eps) · weight, written out: RMSNormalization came with opset 23."""
    dtype = value(x).dtype
    axes = b.integers(*range(-len(sizes), 0))
    mean = b.op("ReduceMean", b.op("Mul", x, x), axes, keepdims=1)
    eps = torch.finfo(dtype).eps if eps is None else eps
    root = b.op("Sqrt", b.op("Add", mean, b.constant(eps, dtype)))
    y = b.op("Div", x, root)
    return y if weight is None else b.op("Mul", y, weight)


TABLE: dict[str, Translate] = {
    "conv1d": _conv, "conv2d": _conv, "conv3d": _conv, "convolution": _convolution, "_convolution": _convolution,
    "conv_transpose1d": _conv_transpose, "conv_transpose2d": _conv_transpose, "conv_transpose3d": _conv_transpose,
    "linear": _linear, "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm_inference,
    "_native_batch_norm_legit_functional": _batch_norm_training,
    "_native_batch_norm_legit": _batch_norm_training,
    "layer_norm": _layer_norm, "group_norm": _group_norm, "instance_norm": _instance_norm, "rms_norm": _rms_norm,
}  # fmt: skip
