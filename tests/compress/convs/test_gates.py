"""Channel and strip attention beside their formulae in numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.special import expit

from convkit.compress.convs import eca, ela


@pytest.mark.parametrize(("channels", "size"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_the_kernel_adapts_to_the_channels(channels: int, size: int) -> None:
    assert eca.kernel_size(channels) == size


def test_eca() -> None:
    torch.manual_seed(0)
    layer, x = eca.ECA(5), torch.randn(2, 9, 4, 6)
    taps = layer.conv.weight.detach().double().numpy().ravel()
    image = x.double().numpy()
    gate = expit(correlate1d(image.mean((2, 3)), taps, axis=1, mode="constant"))
    assert np.abs(layer(x).detach().numpy() - image * gate[:, :, None, None]).max() <= 1e-6


def test_ela() -> None:
    torch.manual_seed(0)
    layer, x = ela.ELA(4, 5, norm_groups=2), torch.randn(2, 4, 7, 6)
    torch.nn.init.normal_(layer.gn.weight)
    torch.nn.init.normal_(layer.gn.bias)
    taps, image = layer.conv.weight.detach().double().numpy()[:, 0], x.double().numpy()

    def gate(strip: np.ndarray) -> np.ndarray:
        y = np.stack([correlate1d(strip[:, c], taps[c], axis=1, mode="constant") for c in range(4)], 1)
        parts = y.reshape(2, 2, -1)
        parts = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + layer.gn.eps)
        scale, shift = (p.detach().double().numpy()[:, None] for p in (layer.gn.weight, layer.gn.bias))
        return expit(parts.reshape(y.shape) * scale + shift)

    wanted = image * gate(image.mean(3))[:, :, :, None] * gate(image.mean(2))[:, :, None, :]
    assert np.abs(layer(x).detach().numpy() - wanted).max() <= 1e-5


def test_a_kernel_without_a_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        eca.ECA(4)
    with pytest.raises(ValueError, match="odd"):
        ela.ELA(16, 4)
    with pytest.raises(ValueError, match="20 channels do not part into 16 groups"):
        ela.ELA(20)
