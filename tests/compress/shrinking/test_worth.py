"""What channels are worth, against what networks truly lose without them, and what a fit wins back."""

import numpy as np
import torch
from scipy import stats

from convkit.compress.apply import prepare
from convkit.compress.method import Batches
from convkit.compress.model import Model, clone
from convkit.compress.search.sensitivity import Probes
from convkit.compress.shrinking import cutting, levels, shrink
from convkit.compress.shrinking.coupling import coupling
from convkit.compress.shrinking.worth import means, readers, worth
from tests.compress.network import batches, residual


def _model() -> tuple[Model, Batches]:
    given = residual("N", 3, 16, 16).model("scores")
    return prepare(given, ("simplify", "fold_batch_norm")), batches(given, 4, 16)


def _lost(model: Model, other: Model, samples: Batches) -> float:
    pairs = [(model(batch)["scores"], other(batch)["scores"]) for batch in samples]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(a.square().sum() for a, _ in pairs))


def test_worth_ranks_channels_by_what_is_lost_without_them() -> None:
    """The oracle takes each class out, puts its mean into the biases of those that read it, and runs the network."""
    model, samples = _model()
    coupled = coupling(model.graph)
    found = worth(model, coupled, samples, probes=Probes(16))
    mean = means(model, coupled, samples)
    true = {}
    for root in found:
        own = clone(model.graph)
        again = coupling(own)
        for node, along, layer in readers(again, own):
            chosen = along.labels == root
            at = next(one for one in mean if one.name == node.name)
            with torch.no_grad():
                weight = layer.weight[:, chosen].flatten(2) if layer.weight.ndim > 2 else layer.weight[:, chosen, None]
                layer.bias += (weight.sum(2) * mean[at][chosen]).sum(1)
        true[root] = _lost(model, model.replace(graph=cutting.masked(own, again, {root})), samples)
    names = sorted(found)
    rank = stats.spearmanr([found[root] for root in names], [true[root] for root in names]).statistic
    assert rank >= 0.9
    ratios = np.array([found[root] / true[root] for root in names if true[root] > 1e-6])
    assert 0.5 <= np.median(ratios) <= 2


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
