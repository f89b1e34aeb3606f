"""What half precision has no digits for: layers that divide by small numbers, and those that sum many."""

import pytest
import torch
from torch import Tensor, nn

from convkit.compress.convs.flow4d import STDB
from convkit.compress.convs.lie_group import LiftConv2d
from convkit.compress.convs.lssl import LSSL
from convkit.compress.convs.poincare import PoincareConvolution2d
from convkit.compress.convs.spark import SparseBatchNorm2d
from convkit.compress.convs.time_norm import TimeRMSNorm

HALVES = (torch.float16, torch.bfloat16)


def zeros_beside(*shape: int) -> Tensor:
    """The first sample is nothing."""
    x = torch.randn(*shape)
    x[0] = 0
    return x


CASES = {
    "poincare": (lambda: PoincareConvolution2d(4, 5, (3, 3), padding=1), (zeros_beside(2, 4, 9, 8),)),
    "time_norm": (lambda: TimeRMSNorm(6), (zeros_beside(2, 5, 6), torch.zeros(2))),
    "lie_group": (lambda: LiftConv2d(torch.tensor([[[2.0, 0], [0, 1]]]), 2, 3, 5), (torch.randn(2, 2, 9, 8),)),
    "lssl": (lambda: LSSL(4, order=8), (torch.randn(2, 4, 20),)),
    "spark": (
        lambda: SparseBatchNorm2d(2, track_running_stats=False),
        (torch.randn(2, 2, 256, 256), torch.ones(2, 1, 4, 4)),
    ),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_it_computes_in_half_precision_what_it_does_in_single(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    make, inputs = CASES[name]
    layer: nn.Module = make().eval()
    wanted = layer(*inputs).detach()
    made = layer.to(dtype)(*(x.to(dtype) for x in inputs)).detach()
    assert made.dtype == dtype
    assert float((made - wanted).abs().max() / wanted.abs().max()) <= 0.05


def test_norms_of_many_places_learn_in_half_precision() -> None:
    layer = STDB(2, 3).train().half()
    occupied = torch.ones(1, 1, 32, 32, 32, 4).half()
    made = layer(torch.randn(1, 2, 32, 32, 32, 4).half(), occupied)
    assert torch.isfinite(made).all()
    assert layer.space_norm.running_var is not None
    assert (layer.space_norm.running_var != 1).all()
