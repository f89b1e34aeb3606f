"""A loss is the same whether the search tells it of batches or metrics tell it of all samples."""

import numpy as np
import pytest
import torch
from torch import Tensor

from convkit.compress import metric
from convkit.compress.errors import ConvkitError
from convkit.compress.search import criterion, loss
from convkit.compress.search.criterion import CROSS_ENTROPY, DISTANCE, SQUARED_ERROR

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def odds(scores: np.ndarray, axis: int) -> np.ndarray:
    return torch.from_numpy(scores).softmax(axis).numpy()


ALL = {
    "classes": (normal(6, 5), RNG.integers(0, 5, 6)),
    "several classes, or none": (normal(6, 5), RNG.random((6, 5)) < 0.3),
    "fewer classes than there are": (normal(6, 5), np.eye(3, dtype=bool)[RNG.integers(0, 3, 6)]),
    "positions": (normal(6, 5, 3, 2), RNG.integers(0, 5, (6, 3, 2))),
    "probabilities": (odds(normal(6, 5), 1), RNG.integers(0, 5, 6)),
    "a reader's probabilities": (odds(normal(6, 4, 5), 2), RNG.integers(0, 5, (6, 4))),
    "images": (normal(6, 3, 4, 4), normal(6, 3, 4, 4)),
    "bytes": (normal(6, 3, 4, 4) * 50 + 100, RNG.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)),
}


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("size", [1, 3])
def test_batches_add_up_to_what_metrics_say(case: str, size: int) -> None:
    exact, labels = ALL[case]
    low = np.round(exact * 8) / 8
    found = loss.labelled(_batches(exact, size), [one for (one,) in _batches(labels, size)])
    pairs = zip(_batches(low, size), _batches(exact, size), strict=True)
    total = sum(found.excess(found.features(a), found.features(b), at) for at, (a, b) in enumerate(pairs))
    kind = criterion.of_labels(labels, exact)
    reference = {"y": exact}
    scores, of_float = ({kind.metric: metric.evaluate(kind.metric, {"y": y}, reference, labels)} for y in (low, exact))
    assert kind.loss(scores, of_float) == pytest.approx(total, rel=1e-4, abs=1e-6)
    assert (kind == SQUARED_ERROR) == (case in ("images", "bytes"))


def _batches(array: np.ndarray, size: int) -> list[list[Tensor]]:
    return [[torch.from_numpy(array[i : i + size])] for i in range(0, len(array), size)]


@pytest.mark.parametrize("case", ALL)
def test_foretold_is_what_a_small_change_costs(case: str) -> None:
    """The slope to first order; and probes have the size of what the curvature is."""
    exact, labels = ALL[case]
    (outputs,), (wanted,) = _batches(exact, 6), _batches(labels, 6)
    found = loss.labelled([outputs], wanted)
    step = 1e-3 * outputs[0] * torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0)) / 10
    before, after = found.features([outputs[0].double()]), found.features([(outputs[0] + step).double()])
    slope = found.slope(before, 0)
    assert slope is not None
    told = float((slope[0] * (after[0] - before[0])).sum())
    assert found.excess(after, before, 0) == pytest.approx(told, rel=0.02, abs=1e-9)
    probe = found.probe(before, 0, torch.Generator().manual_seed(0))
    assert probe[0].shape == before[0].shape


def test_what_people_read() -> None:
    assert DISTANCE.words(1e-3) == "30.0 dB"
    assert (DISTANCE.shown(0.0), DISTANCE.shown(1e-9)) == (60.0, 60.0)
    assert CROSS_ENTROPY.words(0.01234) == "+0.0123 nats"
    assert CROSS_ENTROPY.words(-0.01234) == "-0.0123 nats"
    assert (DISTANCE.better, CROSS_ENTROPY.better) == ("higher", "lower")


def test_a_distance_is_what_sqnr_says() -> None:
    assert DISTANCE.loss({"sqnr": 20.0}, {}) == pytest.approx(0.01)
    assert DISTANCE.same({}) == 0.0
    assert CROSS_ENTROPY.same({"cross_entropy": 0.5}) == pytest.approx(0.005)


@pytest.mark.parametrize(
    "labels", [np.full(6, 5), np.ones((6, 6), bool), np.zeros((6, 4), np.float32), np.zeros(4, int)]
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ConvkitError):
        loss.labelled(_batches(normal(6, 5), 6), [torch.from_numpy(labels)])
