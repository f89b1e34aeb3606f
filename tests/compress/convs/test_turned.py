"""Kernels that an image turns, tables, and a block of folded layers, beside their formulae."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convkit.compress.convs.cross_d import CrossDConv2d
from convkit.compress.convs.lut import Lut256, MefLut
from convkit.compress.convs.unireplknet import UniRepLKNetBlock


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_a_kernel_is_turned_in_its_spectrum() -> None:
    """By a phase in each of its frequencies, as the paper has it; then its middle slice is an ordinary kernel."""
    torch.manual_seed(0)
    layer, x = CrossDConv2d(2, 3, 3).eval(), torch.randn(2, 2, 6, 7)
    maps = numbers(layer.rotation(x)).reshape(2, 4, -1)
    share = np.exp(maps) / np.exp(maps).sum(-1, keepdims=True)
    pooled = (share * maps).sum(-1)
    frequencies = np.stack(np.meshgrid(*[np.fft.fftfreq(3)] * 3, indexing="ij"))
    for sample in range(2):
        a, b, c = pooled[sample, :3] / np.linalg.norm(pooled[sample, :3])
        angle = np.pi / 4 * np.tanh(pooled[sample, 3])
        turn = np.eye(3) + angle * np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        phase = np.exp(-2j * np.pi * np.einsum("i,ij,j...->...", np.ones(3), turn, frequencies))
        moved = np.fft.ifftn(np.fft.fftn(numbers(layer.weight), axes=(2, 3, 4)) * phase, axes=(2, 3, 4)).real
        kernel = torch.from_numpy(moved[:, :, 1])
        wanted = F.conv2d(x[sample : sample + 1].double(), kernel, padding=1)
        assert np.abs(numbers(layer(x))[sample] - wanted.numpy()[0]).max() <= 1e-5


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 2)])
def test_a_turned_kernel_goes_in_steps(stride: int, padding: int) -> None:
    """As that of F.conv2d does."""
    torch.manual_seed(0)
    layer, x = CrossDConv2d(4, 6, 5, groups=2, stride=stride, padding=padding).eval(), torch.randn(2, 4, 9, 6)
    kernels = layer.kernel(layer.shifts(x)).reshape(2, 6, 2, 5, 5)
    wanted = [F.conv2d(x[n : n + 1], kernels[n], None, stride, padding, groups=2) for n in range(2)]
    torch.testing.assert_close(layer(x), torch.cat(wanted))


def test_steps_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a stride from 1 on and padding from 0 on, not 0 and None"):
        CrossDConv2d(2, 2, 3, stride=0)
    with pytest.raises(ValueError, match="a stride from 1 on and padding from 0 on, not 1 and -1"):
        CrossDConv2d(2, 2, 3, padding=-1)
    with pytest.raises(ValueError, match=r"does not fit into \[1, 2, 2, 8\]: pad by more than 0"):
        CrossDConv2d(2, 2, 3, padding=0)(torch.zeros(1, 2, 2, 8))


def test_an_even_kernel_has_no_middle() -> None:
    with pytest.raises(ValueError, match="odd size, not 4"):
        CrossDConv2d(2, 2, 4)


def test_a_table_is_the_function_of_each_code() -> None:
    scale, zero = 0.05, 100
    codes = torch.arange(256)
    table = Lut256.of(F.silu, scale, zero)
    assert torch.equal(table((codes - zero) * scale), F.silu((codes - zero) * scale))
    assert table(torch.tensor([-99.0])).item() == table.table[0].item()
    assert table(torch.tensor([99.0])).item() == table.table[255].item()


def test_exposures_are_fused_by_their_tables() -> None:
    torch.manual_seed(0)
    fusion, frames = MefLut(torch.rand(2, 256), radius=1, eps=0.01), torch.rand(1, 2, 5, 6)
    weights = np.zeros((2, 5, 6))
    light = numbers(frames)[0]
    looked_up = np.stack([numbers(fusion.table)[k][np.floor(255 * light[k]).astype(int)] for k in range(2)])

    def box(image: np.ndarray) -> np.ndarray:
        return np.array([
            [image[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(6)] for i in range(5)
        ])  # fmt: skip

    for k in range(2):
        covariance = box(light[k] * looked_up[k]) - box(light[k]) * box(looked_up[k])
        slope = covariance / (box(light[k] ** 2) - box(light[k]) ** 2 + 0.01)
        weights[k] = np.abs(slope * light[k] + box(looked_up[k]) - slope * box(light[k])) + 1e-8
    wanted = (weights / weights.sum(0) * numbers(frames)[0]).sum(0).clip(0, 1)
    assert np.abs(numbers(fusion(frames))[0, 0] - wanted).max() <= 1e-4


def test_tables_are_learnt_where_the_light_falls() -> None:
    fusion, frames = MefLut(torch.rand(2, 256), radius=1), torch.full((1, 2, 4, 4), 40 / 255)
    frames[:, 1, :2] = 200 / 255
    fusion(frames)[0, 0, 1].sum().backward()
    assert fusion.table.grad is not None
    reached = [row.nonzero().flatten().tolist() for row in fusion.table.grad]
    assert reached == [[40], [40, 200]]


def test_every_grey_that_float32_sums_of_colours_is_itself() -> None:
    greys = torch.arange(256.0).reshape(1, 1, 16, 16)
    frame = greys / 255 * 0.299 + greys / 255 * 0.587 + greys / 255 * 0.114
    assert ((frame * 255).floor() != greys).any()
    fusion = MefLut(torch.rand(2, 256), radius=1)
    fusion(torch.cat((frame, frame.flip(2)), 1))[0, 0].sum().backward()
    assert fusion.table.grad is not None
    assert fusion.table.grad.count_nonzero() == 2 * 256


def test_tables_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="256 values"):
        Lut256(torch.zeros(255), 1.0)
    with pytest.raises(ValueError, match=r"\[exposures, 256\]"):
        MefLut(torch.zeros(256))
    with pytest.raises(ValueError, match="2 exposures, not for 3"):
        MefLut(torch.zeros(2, 256))(torch.zeros(1, 3, 4, 4))


def test_the_folded_block_is_the_one_that_was_trained() -> None:
    """Its layers one by one, channels last as in the reference implementation."""
    torch.manual_seed(0)
    block, x = UniRepLKNetBlock(8, 7), torch.randn(2, 8, 9, 6)
    for parameter in (block.act["1"].gamma, block.act["1"].beta, block.gamma):
        nn.init.normal_(parameter)
    norm = block.pwconv2["2"]
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.bias)
    block.eval()
    y = block.norm(block.dwconv(x))
    gate = torch.sigmoid(block.se.up(F.relu(block.se.down(F.adaptive_avg_pool2d(y, 1)))))
    hidden = numbers(F.gelu(block.pwconv1["1"]((y * gate).permute(0, 2, 3, 1))))
    response = np.linalg.norm(hidden, axis=(1, 2), keepdims=True)
    share = response / (response.mean(-1, keepdims=True) + 1e-6)
    hidden = numbers(block.act["1"].gamma) * hidden * share + numbers(block.act["1"].beta) + hidden
    joined = np.einsum("nhwi,oi->nohw", hidden, numbers(block.pwconv2["0"].weight))
    mean, var, scale, shift = (
        numbers(p)[:, None, None] for p in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    joined = (joined - mean) / np.sqrt(var + norm.eps) * scale + shift
    wanted = numbers(x) + joined * numbers(block.gamma)[:, None, None]
    assert np.abs(numbers(block(x)) - wanted).max() <= 1e-4


def test_it_trains_as_it_is_folded() -> None:
    """With the statistics of the batch as the running ones, both forms agree."""
    torch.manual_seed(0)
    block, x = UniRepLKNetBlock(4, 5), torch.randn(3, 4, 8, 8)
    nn.init.normal_(block.gamma)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        trained = block.train()(x)
        folded = block.eval()(x)
    # The running variance is of a sample, less by one.
    assert (trained - folded).abs().max() <= 0.02 * trained.abs().max()
