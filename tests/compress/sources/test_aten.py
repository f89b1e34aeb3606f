"""Every aten operator in the table against torch itself, as it stands in a module and made functional first."""
# ruff: noqa: E501 - the table reads by columns

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.errors import ConvkitError
from convkit.compress.model import InputShape, Model, ModelRef
from convkit.compress.sources import _aten_place, _aten_program, _aten_trace, factory


class Body(nn.Module):
    """forward is a function of x, with a parameter w to multiply by."""

    def __init__(self, body: Callable[..., object]) -> None:
        super().__init__()
        self.body = body
        self.w = nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> object:
        return self.body(x)


def translated(module: nn.Module, shape: tuple[int, ...], free: dict[int, str] | None = None) -> Model:
    dims = tuple((free or {}).get(i, size) for i, size in enumerate(shape))
    return factory.from_module(module.eval(), ModelRef("tests:module", shapes={"x": InputShape(dims, shape)}))


def functional(module: nn.Module, shape: tuple[int, ...]) -> Model:
    """The Model of the program that torch makes without in-place operators and views."""
    program, names, sizes = _aten_trace.export(module.eval(), {"x": (("N", *shape[1:]), shape)}, "module")
    with _aten_place.quiet():
        program = program.run_decompositions({})
    return _aten_program.to_model(program, names, sizes, "module", "")


def check(module: nn.Module, shape: tuple[int, ...], free: dict[int, str] | None = None) -> Model:
    """The Model of `module` gives what the module gives, at the sample's size and at another one."""
    model = translated(module, shape, free)
    for grow in (0, 1) if free else (0,):
        sizes = [size + 2 * grow if i in (free or {}) else size for i, size in enumerate(shape)]
        x = torch.randn(sizes, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            wanted = module(x.clone())
        wanted = wanted if isinstance(wanted, tuple | list) else [wanted]
        for found, want in zip(model({"x": x}).values(), wanted, strict=True):
            assert found.shape == want.shape
            assert found.dtype == want.dtype
            torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5, equal_nan=True)
    return model


IMAGE, BATCH = (2, 4, 6, 8), {0: "N"}
FREE = {0: "N", 2: "H", 3: "W"}


def _write(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 1:3] = x[:, :2] + 1
    y[..., :2] *= 2
    return y


def _write_row(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 2] = 0.5
    return y


BODIES: dict[str, Callable[[Tensor], object]] = {
    # activations
    "relu": torch.relu, "relu_": lambda x: (x + 1).relu_(), "relu6": F.relu6, "sigmoid": torch.sigmoid,
    "tanh": torch.tanh, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
    "mish": F.mish, "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "hardtanh": lambda x: F.hardtanh(x, -2, 3),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "elu": lambda x: F.elu(x, 0.7), "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.8), "softplus": F.softplus, "softplus_beta": lambda x: F.softplus(x, 2.0),
    "softsign": F.softsign, "logsigmoid": F.logsigmoid, "hardshrink": F.hardshrink, "softshrink": F.softshrink,
    "tanhshrink": F.tanhshrink, "threshold": lambda x: F.threshold(x, 0.1, 2.0), "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])), "prelu_one": lambda x: F.prelu(x, torch.ones(1)),
    "softmax": lambda x: x.softmax(1), "log_softmax": lambda x: F.log_softmax(x, -1), "softmin": lambda x: F.softmin(x, 1),
    "clamp": lambda x: x.clamp(-0.5, 0.5), "clamp_min": lambda x: x.clamp(min=0.1), "clamp_max": lambda x: x.clamp_max(0.1),
    "clamp_tensor": lambda x: x.clamp(torch.zeros(8), torch.ones(8)), "clip": lambda x: torch.clip(x, max=0.3),
    # functions of one tensor
    "exp": torch.exp, "log": lambda x: (x.abs() + 1).log(), "log1p": lambda x: torch.log1p(x.abs()), "expm1": torch.expm1,
    "sqrt": lambda x: x.abs().sqrt(), "rsqrt": lambda x: (x.abs() + 1).rsqrt(), "neg": torch.neg, "erf": torch.erf,
    "reciprocal": lambda x: (x.abs() + 1).reciprocal(), "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "sign": torch.sign, "sin": torch.sin, "cos": torch.cos, "square": torch.square, "pow2": lambda x: x**2,
    "pow3": lambda x: x**3, "pow_half": lambda x: x.abs() ** 0.5, "pow_tensor": lambda x: x.abs() ** x,
    "pow_scalar": lambda x: 2.0**x, "pow_inverse_root": lambda x: (x.abs() + 1) ** -0.5, "isnan": torch.isnan,
    # arithmetic
    "add": lambda x: x + 2, "add_alpha": lambda x: torch.add(x, x, alpha=3), "sub": lambda x: x - 1.5,
    "rsub": lambda x: 1 - x, "mul": lambda x: x * x, "div": lambda x: x / 3, "div_by": lambda x: 3 / (x.abs() + 1),
    "div_floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"), "floordiv": lambda x: x // 0.3,
    "div_trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"), "remainder": lambda x: x % 0.7,
    "maximum": lambda x: torch.maximum(x, -x), "minimum": lambda x: torch.minimum(x, -x),
    "max_two": lambda x: torch.max(x, -x), "addcmul": lambda x: torch.addcmul(x, x, x, value=2),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1), "lerp": lambda x: torch.lerp(x, -x, 0.3),
    "add_": lambda x: (x * 1).add_(x), "integers": lambda x: torch.arange(8) + (x > 0).int() * 2,
    "int_float": lambda x: (x > 0).int() * 0.5, "bool_mul": lambda x: (x > 0) * x, "float_int": lambda x: x.long() * 3,
    "compare": lambda x: [x > 0, x < 0, x >= 0.5, x <= 0.5, x == 0, x != 0], "compare_two": lambda x: x > x.mean(),
    "logical": lambda x: (x > 0) & (x < 1) | ~(x > -1), "logical_xor": lambda x: torch.logical_xor(x > 0, x > 1),
    "logical_not": lambda x: torch.logical_not(x > 0), "logical_not_float": lambda x: torch.logical_not(x.floor()),
    "bitwise_not": lambda x: ~x.floor().int(), "bitwise_not_bool": lambda x: torch.bitwise_not(x > 0),
    "narrow_end": lambda x: [x.narrow(3, -2, 2), torch.narrow(x, 1, -3, 2)],
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where_scalar": lambda x: torch.where(x > 0, x, 0.0), "masked_fill": lambda x: x.masked_fill(x > 0, -1.0),
    "masked_fill_inf": lambda x: x.masked_fill(x > 0, float("-inf")), "nan_to_num": torch.nan_to_num,
    # shapes
    "flatten": lambda x: x.flatten(1), "view": lambda x: x.view(x.size(0), -1), "reshape": lambda x: x.reshape(-1, 4, 48),
    "view_groups": lambda x: x.view(x.size(0), 2, 2, x.size(2), x.size(3)), "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "merge_batch": lambda x: x.reshape(x.size(0) * 4, x.size(2), x.size(3)), "flatten_all": lambda x: x.flatten(),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2), "squeeze_keep": lambda x: x.squeeze(1),
    "squeeze_all": lambda x: x[:, :1].squeeze(), "unsqueeze": lambda x: x.unsqueeze(-1), "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1), "movedim": lambda x: x.movedim(1, -1), "mT": lambda x: x.mT,
    "swapaxes": lambda x: x.swapaxes(0, 1), "cat": lambda x: torch.cat([x, x], 1), "stack": lambda x: torch.stack([x, -x], 2),
    "hstack": lambda x: torch.hstack([x, x]), "chunk": lambda x: x.chunk(2, 1)[1], "chunk_uneven": lambda x: list(x.chunk(3, 1)),
    "split": lambda x: list(x.split(3, 1)), "split_sizes": lambda x: list(x.split([1, 3], 1)),
    "tensor_split": lambda x: list(torch.tensor_split(x, 3, 1)), "unbind": lambda x: list(x.unbind(1)),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1), "expand_batch": lambda x: torch.ones(1, 3).expand(x.size(0), -1) + x[:, 0, :3, 0],
    "expand_as": lambda x: x.mean(1, keepdim=True).expand_as(x), "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_more": lambda x: x.repeat(2, 1, 1, 1, 1), "tile": lambda x: x.tile(2), "interleave": lambda x: x.repeat_interleave(2, 1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2), "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2), "contiguous": lambda x: x.contiguous().clone().detach() * 1,
    "to": lambda x: x.to(torch.float64), "half_and_back": lambda x: x.half().float(), "type_as": lambda x: (x > 0).type_as(x),
    "dropout": lambda x: F.dropout(x, 0.5, training=False) + F.dropout2d(x, training=False),
    # indices
    "slice": lambda x: x[:, 1:3, ::2], "slice_end": lambda x: x[..., -2:], "select": lambda x: x[:, 1],
    "select_last": lambda x: x[:, -1, 0], "narrow": lambda x: x.narrow(1, 1, 2), "flip": lambda x: x.flip(2, 3),
    "index": lambda x: x[:, [2, 0, 1]], "index_select": lambda x: x.index_select(1, torch.tensor([3, 1])),
    "gather": lambda x: x.gather(1, (x > 0).long()), "roll": lambda x: x.roll((1, -2), (1, 3)), "roll_all": lambda x: x.roll(3, 2),
    "topk": lambda x: list(x.topk(2, 1)), "triu": lambda x: x.triu(1), "tril": lambda x: x.tril(),
    "embedding": lambda x: F.embedding((x > 0).long(), torch.eye(3)), "one_hot": lambda x: F.one_hot((x > 0).long(), 3),
    "sort_max": lambda x: x.max(1)[0],
    "write_slice": _write, "write_select": _write_row, "unfold": lambda x: F.unfold(x, 2),
    # reductions
    "mean": lambda x: x.mean((2, 3)), "mean_keep": lambda x: x.mean((2, 3), keepdim=True), "mean_all": lambda x: x.mean(),
    "mean_channel": lambda x: x.mean(1), "sum": lambda x: x.sum(1), "sum_all": lambda x: x.sum(), "sum_bool": lambda x: (x > 0).sum(1),
    "prod": lambda x: x.prod(1), "amax": lambda x: x.amax((2, 3)), "amin": lambda x: x.amin(1, keepdim=True),
    "max": lambda x: list(x.max(1)), "min": lambda x: list(x.min(1, keepdim=True)), "max_all": lambda x: x.max(),
    "argmax": lambda x: x.argmax(1), "argmax_all": lambda x: x.argmax(), "argmin": lambda x: x.argmin(1, keepdim=True),
    "var": lambda x: x.var(1), "var_biased": lambda x: x.var(1, unbiased=False), "std": lambda x: x.std(1, keepdim=True),
    "var_mean": lambda x: list(torch.var_mean(x, 1)), "norm": lambda x: x.norm(dim=1), "norm1": lambda x: x.norm(1, 1),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1), "normalize": lambda x: F.normalize(x, dim=1),
    "logsumexp": lambda x: x.logsumexp(1), "cumsum": lambda x: x.cumsum(1), "cosine": lambda x: F.cosine_similarity(x, x + 1, 1),
    # pooling
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1), "max_pool_ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool_dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2), "avg_pool": lambda x: F.avg_pool2d(x, 2),
    "avg_pool_pad": lambda x: F.avg_pool2d(x, 3, 1, 1), "avg_pool_exclude": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "avg_pool_ceil": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), "global": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 4)), "adaptive_uneven": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, (3, 2)), "global_max": lambda x: F.adaptive_max_pool2d(x, 1),
    # resizing and padding
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "nearest_size": lambda x: F.interpolate(x, size=(9, 12)),
    "nearest_exact": lambda x: F.interpolate(x, size=(9, 5), mode="nearest-exact"), "down": lambda x: F.interpolate(x, scale_factor=0.5),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "bilinear_part": lambda x: F.interpolate(x[:, :, :5, :5].repeat(1, 1, 4, 4), scale_factor=0.7, mode="bilinear"), "nearest_part": lambda x: F.interpolate(x[:, :, :5, :5].repeat(1, 1, 2, 2), scale_factor=1.4),
    "round_decimals": lambda x: x.round(decimals=2),
    "bilinear_size": lambda x: F.interpolate(x, size=(9, 5), mode="bilinear"),
    "bilinear_corners": lambda x: F.interpolate(x, size=(9, 5), mode="bilinear", align_corners=True),
    "upsample": nn.Upsample(scale_factor=(2, 3)), "pad": lambda x: F.pad(x, (1, 2)), "pad_value": lambda x: F.pad(x, (1, 0, 2, 1), value=1.5),
    "reflect": lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"), "replicate": lambda x: F.pad(x, (1, 2, 1, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 1, 1), mode="circular"), "crop": lambda x: F.pad(x, (-1, -1)), "pad_zero": lambda x: F.pad(x, (0, 0)),
    "grid_sample": lambda x: F.grid_sample(x, torch.zeros(1, 3, 3, 2).expand(x.size(0), -1, -1, -1), align_corners=False),
    # made in forward
    "zeros_like": lambda x: x + torch.zeros_like(x), "ones": lambda x: torch.ones(x.size(0), 2), "full": lambda x: torch.full((2, 3), 7.0) + x.mean(),
    "new_zeros": lambda x: x.new_zeros(x.size(0), 3), "arange": lambda x: torch.arange(x.size(0)), "linspace": lambda x: x + torch.linspace(0, 1, 8),
    "arange_float": lambda x: torch.arange(x.size(0), dtype=x.dtype) * 0.5, "full_like": lambda x: torch.full_like(x, 2.0),
    "size_as_number": lambda x: x.sum(0) / x.size(0), "eye": lambda x: x @ torch.eye(8), "meshgrid": lambda x: x + torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")[0],
    # products
    "matmul": lambda x: x @ x.mT, "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1].mT), "einsum": lambda x: torch.einsum("nchw,ncHw->nhH", x, x),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0, 0, :, :6], x[0, 1], beta=0.5), "outer": lambda x: torch.outer(x[0, 0, 0], x[0, 0, 0]),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x), "attention_causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention_mask": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(6).bool()),
    "linear_of_input": lambda x: F.linear(x[:, 0, 0], x[0, 0]), "conv_of_input": lambda x: F.conv2d(x, x[:2, :, :3, :3]),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0, :, :6], x[:, 0], x[:, 1].mT, alpha=2.0), "dot": lambda x: torch.dot(x[0, 0, 0], x[0, 0, 1]),
    "mv": lambda x: x[0, 0] @ x[0, 0, 0], "cdist_free": lambda x: (x.unsqueeze(1) - x.unsqueeze(2)).abs().sum(-1),
    "instance_norm": F.instance_norm, "group_norm": lambda x: F.group_norm(x, 2), "layer_norm": lambda x: F.layer_norm(x, (6, 8)),
    "rms_norm": lambda x: F.rms_norm(x, (8,)), "local_response": lambda x: F.local_response_norm(x, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_an_operator_is_torchs_own(name: str) -> None:
    check(Body(BODIES[name]), IMAGE, BATCH)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "nearest-exact"])
def test_a_scale_gives_the_size_that_torch_has(mode: str) -> None:
    """The product is just a whole number in float64, as torch counts, or in float32, as engines do, not in both."""
    body, sizes = Body(lambda x: F.interpolate(x, scale_factor=(1.4, 2.3), mode=mode)), (1, 2, 45, 50)
    model, x = translated(body, sizes), torch.zeros(sizes)
    (scales,) = model.graph.buffers()
    assert model({"x": x})["output"].shape == body(x).shape
    assert torch.equal((torch.tensor(sizes) * scales).floor(), torch.tensor(body(x).shape))


WITHOUT_BATCH: dict[str, Callable[[Tensor], object]] = {
    "max_pool1d": lambda x: F.max_pool1d(x[0, 0], 2), "max_pool2d": lambda x: F.max_pool2d(x[0], 2),
    "max_pool3d": lambda x: F.max_pool3d(x, 2), "avg_pool1d": lambda x: F.avg_pool1d(x[0, 0], 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x[0], 2), "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x[0], 2), "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x[0], 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[0], 2), "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.unsqueeze(0), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_BATCH)
def test_what_onnx_has_for_images_in_batches_alone_is_torchs_own_or_refused(name: str) -> None:
    with pytest.raises(ConvkitError, match="has no ONNX form"):
        check(Body(WITHOUT_BATCH[name]), (2, 4, 6, 8))


FUNCTIONAL = ("to", "gather", "chunk", "unbind", "attention_mask", "write_slice", "write_select", "dropout", "einsum", "relu_",
              "instance_norm", "group_norm", "layer_norm", "nearest", "reflect", "embedding", "roll", "prelu_one", "view")  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_an_operator_made_functional(name: str) -> None:
    module, x = Body(BODIES[name]), torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    wanted = module(x.clone())
    wanted = wanted if isinstance(wanted, tuple | list) else [wanted]
    for found, want in zip(functional(module, IMAGE)({"x": x}).values(), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


FREE_BODIES = (
    "flatten", "view", "view_groups", "merge_batch", "squeeze", "permute", "cat", "chunk", "expand", "expand_as", "repeat",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "slice", "slice_end", "flip", "roll", "mean", "var",
    "max_pool_ceil", "avg_pool_ceil", "global", "nearest", "nearest_size", "bilinear", "bilinear_corners", "reflect",
    "zeros_like", "new_zeros", "write_slice", "instance_norm", "group_norm", "size_as_number", "normalize",
)  # fmt: skip


@pytest.mark.parametrize("name", FREE_BODIES)
def test_an_operator_takes_any_image(name: str) -> None:
    """At twice the rows and columns too, none of them known when the graph is made."""
    check(Body(BODIES[name]), IMAGE, FREE)


FREE_SIZES: dict[str, Callable[[Tensor], object]] = {
    "to_the_size_of_another": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear"),
    "twice": lambda x: F.interpolate(x, size=(x.shape[2] * 2, x.shape[3] * 2)),
    "half": lambda x: F.interpolate(x, size=(x.shape[2] // 2, x.shape[3] // 2)),
    "to_a_multiple": lambda x: F.pad(x, (0, 0, 0, -(-x.shape[2] // 5) * 5 - x.shape[2])),
    "pad_to_even": lambda x: F.pad(x, (0, (x.shape[3] + 1) % 2, 0, x.shape[2] % 2)),
    "pad_to_multiple": lambda x: F.pad(x, (0, -x.shape[3] % 16, 0, -x.shape[2] % 16)),
    "crop_to": lambda x: F.interpolate(x, scale_factor=2)[:, :, : x.shape[2], : x.shape[3] - 1],
    "grid": lambda x: x + torch.arange(x.shape[3]) + torch.arange(x.shape[2]).unsqueeze(1),
    "windows": lambda x: x.view(-1, 4, x.shape[2] // 2, 2, x.shape[3] // 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(1, 2),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "narrow_to": lambda x: x.narrow(3, 0, x.shape[2] // 2),
    "mean_by_size": lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
    "constant": lambda x: torch.full((x.shape[0], x.shape[2]), 0.5),
}


@pytest.mark.parametrize("name", FREE_SIZES)
def test_free_sizes_are_computed(name: str) -> None:
    check(Body(FREE_SIZES[name]), (2, 4, 6, 8), FREE)
