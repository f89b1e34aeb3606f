"""EvoNorm beside the paper's formulae in numpy, float64."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from convkit.compress.convs.evonorm import EvoNorm2dB0, EvoNorm2dS0


def learned(layer: torch.nn.Module) -> list[np.ndarray]:
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, mean=0.5)
    return [p.detach().double().numpy()[:, None, None] for p in (layer.weight, layer.bias, layer.v)]


@pytest.mark.parametrize("training", [True, False])
def test_b0(training: bool) -> None:
    torch.manual_seed(0)
    layer, x = EvoNorm2dB0(5).train(training), torch.randn(3, 5, 6, 4) * 2 + 1
    torch.nn.init.uniform_(layer.running_var, 0.3, 2.0)
    weight, bias, v = learned(layer)
    image, kept = x.double().numpy(), layer.running_var.double().numpy().copy()
    batch = image.var((0, 2, 3)) if training else kept
    own = np.sqrt(image.var((2, 3), keepdims=True) + 1e-3)
    wanted = image / np.maximum(np.sqrt(batch[:, None, None] + 1e-3), v * image + own) * weight + bias
    assert np.abs(layer(x).detach().numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()
    followed = 0.9 * kept + 0.1 * image.var((0, 2, 3), ddof=1) if training else kept
    assert layer.running_var.numpy() == pytest.approx(followed, rel=1e-5)


@pytest.mark.parametrize("unbiased", [True, False])
def test_s0(unbiased: bool) -> None:
    torch.manual_seed(0)
    layer, x = EvoNorm2dS0(6, 3, unbiased=unbiased), torch.randn(2, 6, 5, 7) * 2 + 1
    weight, bias, v = learned(layer)
    image = x.double().numpy()
    groups = image.reshape(2, 3, 2, 5, 7)
    spread = np.sqrt(groups.var((2, 3, 4), keepdims=True, ddof=int(unbiased)) + 1e-5)
    wanted = image * expit(v * image) / np.repeat(spread[:, :, 0], 2, axis=1) * weight + bias
    assert np.abs(layer(x).detach().numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="6 channels do not part into 4 groups"):
        EvoNorm2dS0(6, 4)
    with pytest.raises(ValueError, match=r"EvoNorm2dB0 takes \[N, 4, H, W\], not \[4, 8, 8\]"):
        EvoNorm2dB0(4)(torch.zeros(4, 8, 8))
