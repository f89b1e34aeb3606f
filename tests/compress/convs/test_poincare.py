"""The Poincaré convolution beside its definition: patches put on the ball, one after the other, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import special

from convkit.compress.convs import poincare
from convkit.compress.convs.poincare import PoincareConvolution2d

EDGE = 1 - 4e-3
"""Of the ball's radius: where the authors' code keeps points in float32."""


def inside(p: torch.Tensor, root: float, edge: float) -> torch.Tensor:
    return p * min(1.0, edge / (root * float(p.norm())))


def patch(
    u: torch.Tensor, z: torch.Tensor, r: torch.Tensor, c: float, *, as_released: bool, edge: float
) -> torch.Tensor:
    """One output vector: the exponential map, the distances to the hyperplanes, their point, and its logarithm."""
    root = math.sqrt(c)
    norm = float(u.norm())
    p = inside(math.tanh(root * norm) * u / (root * norm), root, edge)
    factor = 1 - c * float(p @ p)
    lam = 2 * factor if as_released else 2 / factor
    v = torch.stack([
        2 * z[:, k].norm() / root * torch.asinh(
            root * lam / z[:, k].norm() * (p @ z[:, k]) * torch.cosh(2 * root * r[k])
            - (lam - 1) * torch.sinh(2 * root * r[k])
        )
        for k in range(z.shape[1])
    ])  # fmt: skip
    w = torch.sinh(root * v) / root
    y = inside(w / (1 + torch.sqrt(1 + c * (w @ w))), root, edge)
    return torch.atanh(root * y.norm()) * y / (root * y.norm())


def by_patches(layer: PoincareConvolution2d, x: torch.Tensor, *, edge: float) -> torch.Tensor:
    """[N, Cout, places]."""
    assert layer.bias is not None
    channels, taps = x.shape[1], math.prod(layer.kernel_dims)
    ratio = special.beta(channels * taps / 2, 0.5) / special.beta(channels / 2, 0.5)
    patches = F.unfold(x.double() * ratio, layer.kernel_dims, padding=layer.padding, stride=layer.stride)
    z, r = layer.weights.detach().double(), layer.bias.detach().double()
    released = layer.as_released
    return torch.stack([
        torch.stack([patch(u, z, r, layer.c, as_released=released, edge=edge) for u in image.t()], 1)
        for image in patches
    ])  # fmt: skip


def off(made: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((made.detach().double().flatten(2) - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("as_released", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding", "c"), [((3, 3), 1, 1, 0.1), ((1, 3), 2, 0, 1.0)])
def test_a_patch_at_a_time(kernel: tuple[int, int], stride: int, padding: int, c: float, as_released: bool) -> None:
    torch.manual_seed(0)
    layer = PoincareConvolution2d(3, 5, kernel, c=c, stride=stride, padding=padding, as_released=as_released)
    torch.nn.init.normal_(layer.bias, std=0.3)
    x = torch.randn(2, 3, 6, 7)
    assert off(layer(x), by_patches(layer, x, edge=EDGE)) <= 1e-5


@pytest.mark.parametrize("as_released", [True, False])
@pytest.mark.parametrize(("size", "gain"), [(20.0, 1.0), (1.0, 40.0)], ids=["read", "made"])
def test_points_stay_inside_the_ball(size: float, gain: float, as_released: bool) -> None:
    """Those of the patches, and those that are made."""
    torch.manual_seed(0)
    layer, x = PoincareConvolution2d(3, 5, (3, 3), padding=1, as_released=as_released), size * torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        layer.weights *= gain
    wanted = by_patches(layer, x, edge=EDGE)
    assert off(layer(x), wanted) <= 1e-5
    assert off(by_patches(layer, x, edge=1 - 1e-9), wanted) > 1e-2
    assert off(layer.double()(x.double()), by_patches(layer, x, edge=1 - 1e-5)) <= 1e-9


def test_weights_of_another_curvature_are_refused() -> None:
    """It is told as it is, or as what softplus makes it of; HypLL's is always the latter."""
    layer = PoincareConvolution2d(2, 3, (1, 1), c=0.1)
    state, soft = layer.state_dict(), math.log(math.expm1(0.1))
    for name, told in (("ball.isp_c", 0.1), ("ball.isp_c", soft), ("manifold.c.value", soft)):
        layer.load_state_dict(state | {name: torch.tensor(told)})
    for name, told, words in (
        (
            "ball.isp_c",
            torch.tensor(1.0),
            r"ball\.isp_c is a curvature of 1 or, if it was learnt, 1\.31326, not 0\.1: give",
        ),
        ("manifold.c.value", torch.tensor(0.1), r"a curvature of 0\.744397, not 0\.1: give c"),
        ("ball.isp_c", torch.ones(2), "a curvature of no single one, not 0"),
    ):
        with pytest.raises(RuntimeError, match=words):
            layer.load_state_dict(state | {name: told})


def test_nothing_is_nothing() -> None:
    layer = PoincareConvolution2d(2, 3, (3, 3), padding=1)
    assert not layer(torch.zeros(1, 2, 4, 4)).any()


def test_the_beta_function() -> None:
    for n in (1, 3, 16, 2304):
        assert poincare.beta(n / 2, 0.5) == pytest.approx(special.beta(n / 2, 0.5), rel=1e-9)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="curvature"):
        PoincareConvolution2d(2, 2, (3, 3), c=0)
    with pytest.raises(ValueError, match=r"takes \[N, 2, H, W\]"):
        PoincareConvolution2d(2, 2, (3, 3))(torch.zeros(1, 3, 8, 8))


def test_black_areas_have_slopes() -> None:
    layer = PoincareConvolution2d(2, 3, (3, 3), padding=1)
    x = torch.randn(1, 2, 12, 12)
    x[:, :, :8] = 0
    x.requires_grad_()
    layer(x).square().sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in (x, *layer.parameters()))


@pytest.mark.parametrize("size", [1.0, 40.0, 1e4])
def test_no_input_is_so_large_that_the_output_is_no_number(size: float) -> None:
    """Points that float32 cannot tell from the edge of the ball."""
    layer = PoincareConvolution2d(3, 4, (3, 3), padding=1, as_released=False)
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    with torch.no_grad():
        assert bool(layer(size * torch.randn(1, 3, 5, 6)).isfinite().all())
