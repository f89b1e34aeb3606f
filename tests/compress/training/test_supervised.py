"""The plain loop: it learns, the same each time, and says what it cannot learn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError
from convkit.compress.labels import check
from convkit.compress.training.checkpoint import Checkpoint
from convkit.compress.training.loop import Schedule
from convkit.compress.training.supervised import named, outputs, train, usual_loss

SCHEDULE = Schedule(epochs=8, batch=16, rate=0.02)


def classes(count: int = 200) -> Data:
    """The side of a line that a point lies on."""
    points = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    return Data({"x": points}, (points @ [1.0, -2.0] > 0).astype(np.int64), "points")


class Net(nn.Module):
    def __init__(self, made: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        thinned = [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), *thinned, nn.Linear(8, made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_it_learns_classes() -> None:
    module, data, told = Net(), classes(), list[tuple[int, float]]()
    losses = train(module, data, SCHEDULE, "cross_entropy", lambda epoch, loss: told.append((epoch, loss)))
    assert told == list(enumerate(losses, 1))
    assert losses[-1] < losses[0] / 3
    assert not module.training
    assert (outputs(module, data, 7).argmax(1) == data.labels).mean() > 0.95


def test_it_learns_arrays() -> None:
    data = classes()
    wanted = data.arrays["x"] @ np.array([[1.0, 0.5], [-2.0, 1.0]], np.float32)
    for loss in ("mse", "l1"):
        losses = train(Net(), Data(data.arrays, wanted, "arrays"), SCHEDULE, loss)
        assert losses[-1] < losses[0] / 2


def test_a_last_batch_of_one_sample_is_left_for_the_next_epoch() -> None:
    """A norm has no variance of it."""
    assert len(train(Net(), classes(65), replace(SCHEDULE, epochs=2), "cross_entropy")) == 2


@pytest.mark.parametrize(("count", "epochs"), [(65, 2), (33, 3), (64, 2), (10, 1)])
def test_the_rate_ends_its_cycle(count: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    train(Net(), classes(count), replace(SCHEDULE, epochs=epochs, batch=32), "cross_entropy")
    assert max(rates) >= 0.5 * SCHEDULE.rate
    assert len(rates) == 1 or rates[-1] < 0.01 * SCHEDULE.rate


def test_labels_of_more_classes_than_there_are_are_told() -> None:
    data = classes()
    with pytest.raises(ConvkitError, match="label"):
        train(Net(), Data(data.arrays, np.asarray(data.labels) + 1, ""), SCHEDULE, "cross_entropy")


def test_arrays_that_run_backwards_are_learnt_from() -> None:
    data = classes()
    turned = Data({"x": data.arrays["x"][:, ::-1]}, data.labels, "")
    assert len(train(Net(), turned, replace(SCHEDULE, epochs=1), "cross_entropy")) == 1


def test_steps_of_one_sample_are_all_taken() -> None:
    """Where that is asked for: networks whose kernels depend on the image take no other."""
    net = nn.Sequential(nn.Linear(2, 2))
    seen: list[int] = []
    net.register_forward_hook(lambda _net, _given, made: seen.append(len(made)))
    data = classes(20)
    train(
        net,
        Data({"input": data.arrays["x"]}, data.labels, "points"),
        replace(SCHEDULE, epochs=3, batch=1),
        "cross_entropy",
    )
    assert seen == [1] * 60


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    made = []
    for seed in (0, 0, 1):
        module = Net()
        train(module, classes(), replace(SCHEDULE, epochs=2, seed=seed), "cross_entropy")
        made.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_what_was_killed_goes_on_to_the_same_weights_also_in_dropout(tmp_path: Path) -> None:
    def learn(*, stop: int = 9, resume: bool = False) -> dict[str, torch.Tensor]:
        def say(epoch: int, loss: float) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)  # as a command does
        module, kept = Net(dropout=0.3), Checkpoint(str(tmp_path / "out"), ["one"], resume=resume)
        train(module, classes(), replace(SCHEDULE, epochs=4), "cross_entropy", say, kept=kept)
        return module.state_dict()

    whole = learn()
    with pytest.raises(KeyboardInterrupt):
        learn(stop=2)
    half = learn(resume=True)
    assert all(torch.equal(half[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("labels", "loss"),
    [
        (np.array([0, 1]), "cross_entropy"),
        (np.array([0.0, 1.0]), "mse"),
        (np.zeros((2, 3)), "mse"),
        (np.eye(2, dtype=bool), "mse"),
    ],
)
def test_labels_tell_the_loss(labels: np.ndarray, loss: str) -> None:
    assert usual_loss(labels) == loss


@pytest.mark.parametrize(
    ("labels", "loss", "words"),
    [
        (None, "mse", "the training data has no labels"),
        (np.zeros(200, np.int64), "mse", "are none for mse"),
        (np.zeros((200, 2), np.float32), "cross_entropy", "are none for cross_entropy"),
        (np.zeros((200, 3), np.float32), "l1", r"the network makes \[16, 2\], labels are \[16, 3\]"),
    ],
)
def test_what_it_cannot_learn_from_is_told(labels: np.ndarray | None, loss: str, words: str) -> None:
    with pytest.raises(ConvkitError, match=words):
        train(Net(), Data(classes().arrays, labels, "none"), SCHEDULE, loss)


@pytest.mark.parametrize("labels", [np.zeros(200, np.int64), np.eye(200, 2, dtype=bool)])
def test_classes_of_an_output_that_is_one_number_a_sample_are_told(labels: np.ndarray) -> None:
    with pytest.raises(ConvkitError, match=r"the output is one number a sample, \[200\], so there are no classes"):
        check(labels, np.zeros(200, np.float32), 1)
    check(np.zeros(200, np.float32), np.zeros(200, np.float32), 1)


def test_a_rate_that_is_too_large_is_told() -> None:
    data = classes()
    wild = Data({"x": data.arrays["x"] * 1e30}, data.arrays["x"] * np.float32(1e30), "wild")
    with pytest.raises(ConvkitError, match="the loss of epoch 1 is") as caught:
        train(Net(), wild, replace(SCHEDULE, rate=1e6), "mse")
    assert "--rate" in caught.value.hint


def test_a_class_below_none_is_told_and_what_has_none_is_left_out() -> None:
    loss, made = named("cross_entropy"), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    with pytest.raises(ConvkitError, match="a label is class -1; number classes from 0"):
        loss(made, torch.tensor([0, -1]))
    alone = loss(made[:1], torch.tensor([0]))
    assert torch.equal(loss(made, torch.tensor([0, -100], dtype=torch.int32)), alone)
