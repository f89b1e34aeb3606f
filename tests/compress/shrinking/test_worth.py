"""What channels are worth, against what networks truly lose without them, and what a fit wins back."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress import weights
from convkit.compress.apply import prepare
from convkit.compress.method import Batches
from convkit.compress.model import Model, clone
from convkit.compress.search.sensitivity import Probes
from convkit.compress.shrinking import cutting, levels, shrink
from convkit.compress.shrinking.coupling import Coupling, coupling
from convkit.compress.shrinking.worth import means, readers, worth
from tests.compress.network import batches, residual
from tests.compress.shrinking.test_cutting import Body, made


def _model() -> tuple[Model, Batches]:
    given = residual("N", 3, 16, 16).model("scores")
    return prepare(given, ("simplify", "fold_batch_norm")), batches(given, 4, 16)


def _lost(model: Model, other: Model, samples: Batches) -> float:
    pairs = [(*model(batch).values(), *other(batch).values()) for batch in samples]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(a.square().sum() for a, _ in pairs))


def _true(model: Model, coupled: Coupling, samples: Batches, roots: Iterable[int]) -> dict[int, float]:
    """By an oracle that takes each class out, puts its mean into the biases of those that read it, and runs the
    network; of the taps of a transposed convolution one in as many as its strides make reaches a place.
    """
    mean = {node.name: one for node, one in means(model, coupled, samples).items()}
    true = {}
    for root in roots:
        own = clone(model.graph)
        again = coupling(own)
        for node, along, layer in readers(again, own):
            chosen, weight = along.labels == root, weights.by_output(layer, layer.weight.detach())
            taps = weight.reshape(*weight.shape[:2], -1).sum(2)
            apart = math.prod(layer.stride) if isinstance(layer, nn.ConvTranspose2d) else 1
            with torch.no_grad():
                layer.bias += taps[:, chosen] @ mean[node.name][chosen] / apart
        true[root] = _lost(model, model.replace(graph=cutting.masked(own, again, {root})), samples)
    return true


def test_worth_ranks_channels_by_what_is_lost_without_them() -> None:
    model, samples = _model()
    coupled = coupling(model.graph)
    found = worth(model, coupled, samples, probes=Probes(16))
    true = _true(model, coupled, samples, found)
    names = sorted(found)
    rank = stats.spearmanr([found[root] for root in names], [true[root] for root in names]).statistic
    assert rank >= 0.9
    ratios = np.array([found[root] / true[root] for root in names if true[root] > 1e-6])
    assert 0.5 <= np.median(ratios) <= 2


class Upward(Body):
    """What is read by a transposed convolution is mostly far from nothing."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__(12, 8)
        self.up = nn.ConvTranspose2d(12, 8, kernel, 2, padding)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.up(F.relu(x + 2)))


@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (4, 1)])
def test_what_a_transposed_convolution_reads_is_worth_what_is_lost_without_it(kernel: int, padding: int) -> None:
    model = made(Upward(kernel, padding), 3, 8, 8)
    samples = batches(model, 4, 16)
    coupled = coupling(model.graph)
    (family,) = [one for one in coupled.families if one.name == "first"]
    found = worth(model, coupled, samples, probes=Probes(16))
    true = _true(model, coupled, samples, family.classes)
    assert all(0.6 < found[root] / true[root] < 1.5 for root in family.classes)


def test_a_constant_channel_is_worth_nothing_to_a_transposed_convolution() -> None:
    model = made(Upward(2, 0), 3, 8, 8)
    first, up = model.graph.get_submodule("first"), model.graph.get_submodule("up")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(up, nn.ConvTranspose2d)
    assert first.bias is not None
    with torch.no_grad():
        first.weight[0] *= 1e-4
        first.bias[0] = 1
        up.weight[0] = up.weight[0].mean((1, 2), keepdim=True)  # so that a bias can stand for it
    coupled = coupling(model.graph)
    (family,) = [one for one in coupled.families if one.name == "first"]
    found = worth(model, coupled, batches(model, 2, 8))
    constant, *others = (found[root] for root in family.classes)
    assert constant < 1e-4 * min(others)


def test_a_fit_wins_back_much_of_what_is_lost() -> None:
    model, samples = _model()
    coupled = coupling(model.graph)
    known = worth(model, coupled, samples)
    gone = levels.uniform(coupled, known, 0.5, step=1)
    own = clone(model.graph)
    cut = _lost(model, model.replace(graph=cutting.cut(own, coupling(own), gone)), samples)
    fitted = _lost(model, shrink.without(model, gone, samples), samples)
    least = sorted(known, key=lambda root: -known[root])
    worst = frozenset(least[: len(gone)])
    assert fitted < 0.7 * cut
    assert fitted < _lost(model, shrink.without(model, levels.never_empty(coupled, worst, known), samples), samples)
