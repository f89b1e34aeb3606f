"""Training of elastic networks: the rates, resuming to the last bit, and many processes to the result of one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convkit.compress.errors import ConvkitError
from convkit.compress.training import delayed, loop
from convkit.compress.training.delayed import Schedule
from tests.compress.training.test_elastic import small

SCHEDULE = Schedule(4, batch=8, rate=0.05, delay=0.5, warm=1.0, seed=1)


def data(count: int = 24) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    chance = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 5, (count,), generator=chance)
    return (torch.randn(count, 3, 16, 16, generator=chance) + labels[:, None, None, None] / 2,), labels


def test_members_begin_at_nothing_and_reach_the_rate_of_the_switch() -> None:
    """β λ, their own rate, rises in a line from 0 to λ(T_w), and is the whole network's from there on."""
    schedule = Schedule(270, rate=0.1625, delay=150 / 270, warm=5)
    assert schedule.begin == pytest.approx(145)
    assert schedule.weight_at(144.9) == 0
    own = [schedule.weight_at(at) * schedule.rate_at(at) for at in (145, 147.5, 149.999)]
    assert own == pytest.approx([0, schedule.rate_at(150) / 2, schedule.rate_at(150)], rel=1e-3)
    assert schedule.weight_at(150) == schedule.weight_at(269) == 1
    assert Schedule(10, delay=0.0, warm=0.0).weight_at(0) == 1


def test_it_learns() -> None:
    elastic = small()
    (arrays, labels) = data(64)
    *_, (_, state) = delayed.train(elastic, arrays, labels, dataclasses.replace(SCHEDULE, epochs=8))
    assert state.losses[-1] < state.losses[0] - 0.1
    for choice in (elastic.space.whole, elastic.space.least):
        member = elastic.member(choice)
        member.recalibrate([arrays])
        right = (member(*arrays)[0].argmax(1) == labels).double().mean()
        assert right > 0.3


def test_what_was_killed_goes_on_to_the_same_bits() -> None:
    arrays, labels = data()
    straight = small()
    *_, (whole, last) = delayed.train(straight, arrays, labels, SCHEDULE)
    first = small()
    for learner, state in delayed.train(first, arrays, labels, SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 2:
            break
    again = small()
    *_, (rest, resumed) = delayed.train(again, arrays, labels, SCHEDULE, kept=kept)
    assert resumed.losses == last.losses
    assert rest.updates.products == whole.updates.products
    for (name, one), (_, other) in zip(straight.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_checkpoint_of_another_network_is_refused() -> None:
    elastic = small()
    learner, state = next(delayed.train(elastic, *data(), SCHEDULE))
    tensors, told = loop.packed(learner, state)
    tensors.pop("weights.graph.stem.0.weight")
    with pytest.raises(ConvkitError, match=r"of another network: graph\.stem\.0\.weight differs"):
        loop.unpacked(learner, tensors, told)


def test_products_are_those_of_the_steps() -> None:
    from convkit.compress.training.elastic import products

    elastic = small()
    arrays, labels = data()
    schedule = dataclasses.replace(SCHEDULE, epochs=1, delay=1.0, warm=0.0)
    *_, (learner, _) = delayed.train(elastic, arrays, labels, schedule)
    assert learner.updates.products == 3 * 24 * products(elastic.member(elastic.space.whole))


WORKER = """
import sys, torch
from safetensors.torch import save_file
from convkit.compress.training.crew import crew
from convkit.compress.training import delayed
from tests.compress.training.test_delayed import SCHEDULE, data
from tests.compress.training.test_elastic import small
import dataclasses
torch.set_num_threads(1)
elastic = small()
with crew() as own:
    for _, state in delayed.train(elastic, *data(), dataclasses.replace(SCHEDULE, shards=2), crew=own):
        pass
    if own.rank == 0:
        tensors = {n: t.detach().contiguous() for n, t in elastic.named_parameters()}
        save_file(tensors | {"losses": torch.tensor(state.losses)}, sys.argv[1])
"""


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    script, made = tmp_path / "worker.py", [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    script.write_text(WORKER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, str(script), str(made[0])], check=True, env=env)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*torchrun, str(script), str(made[1])], check=True, capture_output=True, env=env)
    one, two = (load_file(str(path)) for path in made)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)


def test_shards_that_do_not_fit() -> None:
    with pytest.raises(ConvkitError, match="a batch of 8 in 3 shards"):
        next(delayed.train(small(), *data(), dataclasses.replace(SCHEDULE, shards=3)))
