"""A student comes nearer to its teacher, and never leaves further off."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, parse_shape
from convkit.compress.sources import factory
from convkit.compress.training import distilled
from convkit.compress.training.checkpoint import Checkpoint
from convkit.compress.training.loop import Schedule
from convkit.compress.training.normed import Normed
from convkit.compress.training.rounded import Norm


def network(width: int, seed: int, classes: int = 5) -> Model:
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
    return factory.from_module(body.eval(), ModelRef("nets:one", shapes=dict([parse_shape("input:Nx3x8x8")])))


def samples(count: int, seed: int) -> Data:
    return Data({"input": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}, None, "")


def test_it_comes_nearer() -> None:
    student, teacher = network(8, 1), network(8, 2)
    found = distilled.distill(student, teacher, (samples(96, 0), samples(32, 1)), Schedule(12, 16, 1e-2))
    assert found.after < 0.5 * found.before
    x = torch.from_numpy(samples(32, 1).arrays["input"])
    made, wanted = (model({"input": x})[model.outputs[0].name] for model in (student, teacher))
    off = float((made - wanted).square().mean() / wanted.var(correction=0))
    assert off == pytest.approx(found.after, rel=1e-5)


def test_what_training_spoils_is_not_kept() -> None:
    student, teacher = network(8, 1), network(8, 1)
    before = {name: tensor.clone() for name, tensor in student.graph.state_dict().items()}
    found = distilled.distill(student, teacher, (samples(32, 0), samples(16, 1)), Schedule(2, 8, 1e-2))
    assert found.before == found.after == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in student.graph.state_dict().items())


def test_the_same_seed_gives_the_same() -> None:
    made = []
    for _ in range(2):
        student = network(8, 1)
        distilled.distill(student, network(8, 2), (samples(48, 0), samples(16, 1)), Schedule(2, 16, 1e-2))
        made.append(student.graph.state_dict())
    assert all(torch.equal(made[0][name], tensor) for name, tensor in made[1].items())


def test_the_teacher_is_left_alone() -> None:
    teacher = network(8, 2)
    before = {name: tensor.clone() for name, tensor in teacher.graph.state_dict().items()}
    distilled.distill(network(8, 1), teacher, (samples(48, 0), samples(16, 1)), Schedule(1, 16, 1e-2))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.graph.state_dict().items())


def test_another_network_is_no_teacher() -> None:
    with pytest.raises(ConvkitError, match="outputs of one are 5, the teacher's 7"):
        distilled.check(network(8, 1), network(8, 1, classes=7))


def convolutions(seed: int) -> Model:
    """One grouped, one transposed, one without a bias, one with a norm of its own."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
    )
    return factory.from_module(body.eval(), ModelRef("nets:one", shapes=dict([parse_shape("input:Nx3x8x8")])))


def test_norms_change_nothing_and_fold_into_what_they_stand_behind() -> None:
    model, given = convolutions(1), torch.from_numpy(samples(16, 0).arrays["input"])
    before = model.graph(given)[0].detach().clone()
    normed = Normed(model.graph, [(given[:8],), (given[8:],)])
    assert sum(isinstance(module, Norm) for module in model.graph.modules()) == 3
    normed.train(mode=False)
    with torch.no_grad():
        assert float((model.graph(given)[0] - before).abs().max()) <= 1e-4
        normed.train()
        model.graph(given * 2 + 1)  # statistics move
        normed.train(mode=False)
        learnt = model.graph(given)[0].clone()
        assert float((learnt - before).abs().max()) > 1e-2
        normed.fold()
        assert float((model.graph(given)[0] - learnt).abs().max()) <= 1e-4
    assert not any(isinstance(module, Norm) for module in model.graph.modules())


def test_norms_that_brought_nothing_leave_nothing() -> None:
    model = convolutions(1)
    before = {name: tensor.clone() for name, tensor in model.graph.state_dict().items() if "running" not in name}
    normed = Normed(model.graph, [(torch.from_numpy(samples(16, 0).arrays["input"]),)])
    normed.fold(learnt=False)
    now = model.graph.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert "0.bias" not in now


@pytest.mark.parametrize("norms", [False, True])
def test_what_was_killed_goes_on_to_the_same_bits(norms: bool, tmp_path: Path) -> None:
    schedule, output = Schedule(4, 16, 1e-2), str(tmp_path / "out")

    def learn(*, stop: int = 9, resume: bool = False) -> dict[str, torch.Tensor]:
        def say(epoch: int, *_: float) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        student, kept = convolutions(1), Checkpoint(output, ["one"], resume=resume)
        data = samples(48, 0), samples(16, 1)
        distilled.distill(student, convolutions(2), data, schedule, norms=norms, kept=kept, say=say)
        return student.graph.state_dict()

    whole = learn()
    with pytest.raises(KeyboardInterrupt):
        learn(stop=2)
    half = learn(resume=True)
    assert all(torch.equal(half[name], tensor) for name, tensor in whole.items())


class Told(nn.Module):
    """Scores, and what is told beside them."""

    def __init__(self, *beside: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.beside = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), beside

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = self.body(x)
        found = {"scores": scores, "class": scores.argmax(1), "sure": scores > 0, "constant": scores * 0 + 1e-3}
        return tuple(found[name] for name in self.beside)

    def model(self) -> Model:
        return factory.from_module(self.eval(), ModelRef("nets:told", shapes=dict([parse_shape("x:Nx3x8x8")])))


def test_whole_numbers_that_a_teacher_makes_are_not_learnt() -> None:
    given = (torch.from_numpy(samples(16, 0).arrays["input"]),)
    both, alone = (Told(*names).model() for names in (("class", "scores", "sure"), ("scores",)))
    wanted, one = distilled.Target(both, given, 8), distilled.Target(alone, given, 8)
    made = torch.zeros(16, 5)
    loss = wanted.loss((torch.zeros(16, dtype=torch.int64), made, torch.zeros(16, 5, dtype=torch.bool)), given)
    assert float(loss) == pytest.approx(float(one.loss((made,), given)))
    assert wanted.distance(both.graph) == 0
    with pytest.raises(ConvkitError, match="makes whole numbers alone"):
        distilled.Target(Told("class", "sure").model(), given, 8)


@pytest.mark.parametrize("value", [0.0, 1e-3, -40.0])
def test_an_output_that_hardly_varies_is_held_to_a_part_of_its_size(value: float) -> None:
    """Its variance is that of rounding, and what is off over that would drown all others."""
    made = torch.full((64,), value, dtype=torch.float64)
    made[0] *= 1 + 1e-12
    assert distilled._scale(made) == pytest.approx(1e4 / value**2 if value else 1)


def test_a_constant_output_does_not_drown_the_others() -> None:
    given = (torch.from_numpy(samples(16, 0).arrays["input"]),)
    teacher = Told("scores", "constant").model()
    with torch.no_grad():
        scores, constant = teacher.graph(*given)
    loss = distilled.Target(teacher, given, 8).loss((scores, constant * 1.01), given)
    assert 0 < float(loss) < 1
