"""Layers of series beside their formulae in numpy and scipy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import cont2discrete, correlate2d
from scipy.special import erf, softmax
from torch import nn

from convkit.compress.convs.delays import LIF, DelayedLayer
from convkit.compress.convs.lssl import LSSL, StreamingLSSL, hippo_legs
from convkit.compress.convs.times_block import TimesBlock, main_frequencies


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def test_the_matrices_keep_the_past() -> None:
    """Equation 2 of the paper, entry by entry."""
    matrix, vector = (each.numpy() for each in hippo_legs(5))
    for n in range(5):
        assert vector[n] == pytest.approx(np.sqrt(2 * n + 1))
        for k in range(5):
            wanted = np.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else n + 1 if n == k else 0
            assert matrix[n, k] == pytest.approx(-wanted)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_linear_system_step_by_step(channels: int) -> None:
    torch.manual_seed(0)
    layer, u = LSSL(3, order=6, channels=channels), torch.randn(2, 3, 20)
    seen = np.zeros((2, 3, channels, 20))
    for feature in range(3):
        a, b = numbers(layer.A), numbers(layer.B)[:, None]
        system = (a, b, np.eye(6), np.zeros((6, 1)))
        a, b, *_ = cont2discrete(system, layer.dt[feature].item(), method="bilinear")
        for sample in range(2):
            state = np.zeros(6)
            for step in range(20):
                now = u[sample, feature, step].item()
                state = a @ state + b[:, 0] * now
                seen[sample, feature, :, step] = numbers(layer.C)[feature] @ state + numbers(layer.D)[feature] * now
    mixed = np.einsum("oi,nil->nol", numbers(layer.output_linear.weight), gelu(seen.reshape(2, 3 * channels, 20)))
    wanted = mixed + numbers(layer.output_linear.bias)[:, None]
    assert np.abs(numbers(layer(u)) - wanted).max() <= 1e-5


def test_sample_by_sample_it_is_the_same_layer() -> None:
    torch.manual_seed(0)
    layer, u = LSSL(4, order=16, channels=2), torch.randn(2, 4, 60)
    step, state = StreamingLSSL(layer), torch.zeros(2, 4, 16)
    made = []
    for index in range(60):
        y, state = step(u[..., index], state)
        made.append(y)
    assert (torch.stack(made, -1) - layer(u)).abs().max() <= 1e-5


@pytest.mark.parametrize("to", [torch.float32, torch.bfloat16, torch.float16])
def test_in_any_precision_the_kernel_is_worked_out_in_double(to: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, u = LSSL(3, order=8), torch.randn(2, 3, 20)
    step, state, made = StreamingLSSL(layer), torch.zeros(2, 3, 8), []
    wanted = layer(u)
    layer.to(to)
    for index in range(20):
        y, state = step(u[..., index].to(to), state.to(to))
        made.append(y)
    assert layer.kernel(20).dtype == torch.float64
    close = 20 * torch.finfo(to).eps * wanted.abs().max()
    for one in (layer(u.to(to)), torch.stack(made, -1)):
        assert one.dtype == to
        assert (one.float() - wanted).abs().max() <= close


def test_assigned_in_single_precision_it_runs() -> None:
    torch.manual_seed(0)
    layer, u = LSSL(3, order=8), torch.randn(2, 3, 20)
    wanted = layer(u)
    layer.load_state_dict({name: tensor.float() for name, tensor in layer.state_dict().items()}, assign=True)
    assert layer.A.dtype == torch.float32
    assert (layer(u) - wanted).abs().max() <= 1e-5


def test_what_the_authors_whole_layer_stores() -> None:
    """Step lengths by their logarithms; of HiPPO-LegS three diagonals of the matrix whose inverse sums all before."""
    order, at = 6, torch.arange(6)
    layer = LSSL(4, order=order)
    off, root = F.pad(torch.ones(order - 1), (1, 1)), (2 * at + 1).sqrt()
    fast = {"dl": -off, "d": torch.ones(order), "du": 0 * off, "pl": root, "pr": root, "c": -at / (2 * at + 1)}
    fast |= {"b": torch.ones(order), "I": torch.eye(order), "ones": torch.ones(order), "arange": at}
    state = {name: tensor for name, tensor in layer.state_dict().items() if name in "CD" or name.startswith("output")}
    state |= {"log_dt": torch.tensor([-3.0, -2.0, -5.0, -4.0])}
    layer.load_state_dict(state | {f"transition.{name}": tensor for name, tensor in fast.items()})
    assert torch.equal(layer.dt, state["log_dt"].exp().double())
    for got, wanted in zip((layer.A, layer.B), hippo_legs(order), strict=True):
        assert (got - wanted).abs().max() <= 1e-5
    upper = torch.rand(order + 1)
    layer.load_state_dict(state | {f"transition.{name}": tensor for name, tensor in (fast | {"du": upper}).items()})
    middle = np.diag(np.ones(order)) - np.diag(np.ones(order - 1), -1) + np.diag(numbers(upper)[1:-1], 1)
    scales = numbers(root)
    wanted = -scales[:, None] * (np.linalg.inv(middle) + np.diag(numbers(fast["c"]))) * scales
    assert np.abs(numbers(layer.A) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    dense = {"transition.a": layer.A, "transition.b": 2 * layer.B, "transition.I": torch.eye(order)}
    twice = 2 * layer.B
    layer.load_state_dict(state | dense)
    assert torch.equal(layer.B, twice)


def test_transitions_of_other_kinds_are_refused() -> None:
    layer = LSSL(4, order=3)
    rows = {f"transition.{name}": torch.ones(4, 3) for name in ("dl", "d", "du", "pl", "pr", "c", "b")}
    with pytest.raises(RuntimeError, match=r"LSSL: an LSSL has one transition for all features.* \(learn=2\)"):
        layer.load_state_dict(layer.state_dict() | rows)
    toeplitz = {f"transition.{name}": torch.ones(3) for name in "abce"}
    with pytest.raises(RuntimeError, match=r'"transition.c", "transition.e"'):
        layer.load_state_dict({name: x for name, x in layer.state_dict().items() if name not in "AB"} | toeplitz)


def test_a_block_of_periods() -> None:
    torch.manual_seed(0)
    block, x = TimesBlock(15, (2, 5), d_model=2, d_ff=3, num_kernels=2), torch.randn(2, 15, 2)
    series = numbers(x)
    strength = np.abs(np.fft.rfft(series, axis=1))[:, [2, 5]].mean(-1)

    def inception(image: np.ndarray, layer: nn.Module) -> np.ndarray:
        made = []
        for kernel in layer.kernels:
            weight, bias = numbers(kernel.weight), numbers(kernel.bias)
            made.append([sum(correlate2d(image[i], weight[o, i], mode="same") for i in range(len(image))) + bias[o]
                         for o in range(len(bias))])  # fmt: skip
        return np.mean(made, 0)

    wanted = series.copy()
    for sample in range(2):
        for turn, period in enumerate((7, 3)):
            rows = -(-15 // period)
            padded = np.zeros((rows * period, 2))
            padded[:15] = series[sample]
            image = padded.reshape(rows, period, 2).transpose(2, 0, 1)
            made = inception(gelu(inception(image, block.conv[0])), block.conv[2])
            unfolded = made.transpose(1, 2, 0).reshape(-1, 2)[:15]
            wanted[sample] += softmax(strength[sample])[turn] * unfolded
    assert np.abs(numbers(block(x)) - wanted).max() <= 1e-5


def test_main_frequencies_are_those_of_the_waves() -> None:
    time = torch.arange(48).double()
    waves = [3 * torch.sin(2 * torch.pi * 6 / 48 * time), torch.cos(2 * torch.pi * 4 / 48 * time) + 9]
    assert main_frequencies(torch.stack(waves, -1).unsqueeze(0), 2) == [6, 4]


def test_delays_and_neurons() -> None:
    torch.manual_seed(0)
    layer = DelayedLayer(3, 4, 6, tau=2.5).eval()
    nn.init.uniform_(layer.norm.weight, 1, 2)
    nn.init.normal_(layer.norm.bias, 0.5)
    nn.init.normal_(layer.norm.running_mean)
    spikes = (torch.rand(2, 3, 10) > 0.5).float()
    weight, places = numbers(layer.conv.weight)[..., 0], np.round(numbers(layer.conv.P)[0, ..., 0] + 3).clip(0, 5)
    mean, var, scale, shift = (
        numbers(p) for p in (layer.norm.running_mean, layer.norm.running_var, layer.norm.weight, layer.norm.bias)
    )
    made, late = numbers(layer(spikes)), 10 + 5 // 2
    assert made.shape == (2, 4, late)
    for sample in range(2):
        potential = np.zeros(4)
        for step in range(late):
            current = np.zeros(4)
            for o in range(4):
                for i in range(3):
                    then = step - (5 - int(places[o, i]))
                    current[o] += weight[o, i] * (spikes[sample, i, then].item() if 0 <= then < 10 else 0)
            potential = potential * (1 - 1 / 2.5) + (current - mean) / np.sqrt(var + 1e-5) * scale + shift
            fired = potential >= 1
            assert (made[sample, :, step] == fired).all()
            potential[fired] = 0
    assert 0 < made.mean() < 1


def test_training_computes_what_is_evaluated_and_moves_delays() -> None:
    torch.manual_seed(0)
    layer, spikes = DelayedLayer(5, 4, 6, tau=2.0).eval(), (torch.rand(3, 5, 12) > 0.5).float()
    nn.init.constant_(layer.norm.bias, 0.4)
    wanted = layer(spikes)
    layer.train()
    layer.norm.eval()
    made = layer(spikes)
    assert torch.equal(made, wanted)
    made.sum().backward()
    for parameter in (layer.conv.weight, layer.conv.P):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_spike_lends_the_slope_of_an_arc_tangent_and_a_neuron_that_begins_anew_none() -> None:
    currents = torch.tensor([[[0.25, 0.5]], [[1.5, 0.75]]], requires_grad=True)
    LIF(2.0).train()(currents).sum().backward()
    assert currents.grad is not None
    first, second = numbers(currents)[:, 0].T
    fired = first >= 1
    slopes = [2.5 / (1 + (2.5 * np.pi * (v - 1)) ** 2) for v in (first, first / 2 * ~fired + second)]
    wanted = np.stack([slopes[0] + slopes[1] / 2 * ~fired, slopes[1]], -1)
    np.testing.assert_allclose(numbers(currents.grad)[:, 0], wanted, rtol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="tau is 1 at least"):
        LIF(0.5)
    with pytest.raises(ValueError, match="1 to 6"):
        TimesBlock(12, (7,), d_model=1, d_ff=1)
    with pytest.raises(ValueError, match="series of 12, not of 11"):
        TimesBlock(12, (3,), d_model=1, d_ff=1)(torch.zeros(1, 11, 1))
    with pytest.raises(ValueError, match=r"\[N, 4, L\]"):
        LSSL(4)(torch.zeros(1, 3, 5))
