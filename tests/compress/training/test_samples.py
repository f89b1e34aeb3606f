"""What a training learns from: every sample once an epoch, and loaders that are held to what they say."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.training import draws
from convkit.compress.training.samples import Arrays, Loader

SPECS = (TensorSpec("x", ("N", 3, "H"), "float32", (1, 3, 4)),)
LOADERS = """
import numpy
import torch
from torch.utils.data import DataLoader, TensorDataset

def good():
    x = torch.arange(60.0).reshape(5, 3, 4)
    return DataLoader(TensorDataset(x, torch.arange(5)), 2, shuffle=True)

def named():
    return [({"x": torch.zeros(2, 3, 7, dtype=torch.float64)}, torch.zeros(2))]

def bare():
    return [torch.zeros(2, 3, 4)]

class Ends:
    def __len__(self):
        return 3

    def __iter__(self):
        yield torch.zeros(2, 3, 4), torch.zeros(2)

def ends():
    return Ends()

def changes():
    return [torch.zeros(2, 3, 4), torch.zeros(2, 4, 4)]

def unlike():
    return [(torch.zeros(2, 3, 4), torch.zeros(3))]

def listed():
    return [(torch.zeros(2, 3, 4), [0, 1])]

def of_numpy():
    return [(torch.zeros(2, 3, 4), numpy.zeros(2, numpy.int64))]

def scalar():
    return [(torch.zeros(1, 3, 4), torch.tensor(1))]

def narrow():
    return [(torch.zeros(2, 3, 4), torch.tensor([3, 1], dtype=dtype)) for dtype in (torch.int32, torch.uint8)]

def nothing():
    return []

def number():
    return 7

def text():
    return ["x"]
"""


@pytest.fixture
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "loaders_here.py").write_text(LOADERS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("loaders_here", None)


def epochs(
    samples: Arrays | Loader, count: int = 1
) -> list[list[tuple[tuple[torch.Tensor, ...], torch.Tensor | None]]]:
    chance = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        draws.begin(3, number)
        found.append(list(samples.epoch(number, 4, 2, chance)))
    return found


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 4]), (10, [4, 4, 2]), (1, [1]), (3, [3])])
def test_every_sample_comes_once_but_for_a_last_batch_that_is_too_small(count: int, sizes: list[int]) -> None:
    arrays = Arrays((torch.arange(count),), torch.arange(count))
    (batches,) = epochs(arrays)
    assert [len(inputs[0]) for inputs, _ in batches] == sizes
    assert arrays.steps(4, 2) == len(sizes)
    seen = torch.cat([inputs[0] for inputs, _ in batches])
    assert len(seen.unique()) == sum(sizes)
    assert all(labels is not None and torch.equal(inputs[0], labels) for inputs, labels in batches)


@pytest.mark.usefixtures("loaders")
def test_a_data_loader_is_one_and_its_order_is_each_epochs_own() -> None:
    first, again = (epochs(Loader("loaders_here:good", SPECS), 2) for _ in range(2))
    order = [[labels.tolist() for _, labels in one if labels is not None] for one in first]
    assert sorted(one for batch in order[0] for one in batch) == [0, 1, 2, 3, 4]
    assert order == [[labels.tolist() for _, labels in one if labels is not None] for one in again]
    assert order[0] != order[1]
    draws.begin(3, 1)
    later = list(Loader("loaders_here:good", SPECS).epoch(1, 4, 2, torch.Generator()))
    assert [labels.tolist() for _, labels in later if labels is not None] == order[1]


@pytest.mark.usefixtures("loaders")
def test_inputs_come_by_name_and_alone() -> None:
    (((x,), labels),) = epochs(Loader("loaders_here:named", SPECS))[0]
    assert x.dtype == torch.float32
    assert labels is not None
    (((x,), labels),) = epochs(Loader("loaders_here:bare", SPECS))[0]
    assert x.shape == (2, 3, 4)
    assert labels is None


@pytest.mark.usefixtures("loaders")
def test_classes_come_in_any_whole_numbers() -> None:
    for _, labels in epochs(Loader("loaders_here:narrow", SPECS))[0]:
        assert labels is not None
        assert labels.dtype == torch.int64
        assert labels.tolist() == [3, 1]


@pytest.mark.usefixtures("loaders")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ends", "loaders_here:ends ends behind 1 of its 3 batches in epoch 1"),
        ("changes", r"batch 2 of loaders_here:changes in epoch 1 has x of \[2, 4, 4\]"),
        ("unlike", "has 3 labels for 2 samples"),
        ("listed", "batch 1 of loaders_here:listed in epoch 1 has labels in a list"),
        ("of_numpy", "has labels in a ndarray"),
        ("scalar", "has labels in a Tensor"),
        ("nothing", "loaders_here:nothing has no batches"),
        ("number", "loaders_here:number returns a int where batches are wanted"),
        ("text", "is no batch of x"),
        ("missing", "has no 'missing'"),
    ],
)
def test_what_a_loader_does_wrong_is_one_line(name: str, said: str) -> None:
    with pytest.raises(ConvkitError, match=said):
        epochs(Loader(f"loaders_here:{name}", SPECS))
