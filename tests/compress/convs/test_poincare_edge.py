"""Points that float32 cannot tell from the edge of the ball."""

import pytest
import torch

from convkit.compress.convs.poincare import PoincareConvolution2d


@pytest.mark.parametrize("size", [1.0, 40.0, 1e4])
def test_no_input_is_so_large_that_the_output_is_no_number(size: float) -> None:
    torch.manual_seed(0)
    layer = PoincareConvolution2d(3, 4, (3, 3), padding=1, as_released=False)
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    with torch.no_grad():
        assert bool(layer(size * torch.randn(1, 3, 5, 6)).isfinite().all())
