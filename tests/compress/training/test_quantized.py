"""Quantization-aware training comes nearer than rounding does, goes on where it was killed, and says what broke."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convkit.compress.errors import ConvkitError
from convkit.compress.training import loop, quantized, supervised
from convkit.compress.training.distilled import Target
from convkit.compress.training.loop import Schedule
from convkit.compress.training.quantized import Aim
from convkit.compress.training.samples import Arrays, Batch, Inputs, Loader
from convkit.compress.training.trainable import Network
from tests.compress.network import batches
from tests.compress.training.test_trainable import network, plan_of

SCHEDULE = Schedule(6, batch=16, rate=1e-3, decay=0.0)


def inputs(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    return tuple(batches(plan_of("residual", "onnxruntime-cpu")[0], 1, count, seed=seed)[0].values())


def aim(*, labels: bool = False) -> Aim:
    """What the float network makes, or the classes that it gives."""
    teacher = plan_of("residual", "onnxruntime-cpu")[0]
    held = inputs(32, 1)
    if not labels:
        return Aim(Target(teacher, held, 16), 1.0, None, held, None)
    return Aim(None, 0.0, supervised.named("cross_entropy"), held, classes(held))


def classes(given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What the float network takes them for."""
    with torch.no_grad():
        found: torch.Tensor = plan_of("residual", "onnxruntime-cpu")[0].graph(*given)[0].argmax(1)
    return found


def samples(count: int = 96) -> Arrays:
    return Arrays(inputs(count, 0), classes(inputs(count, 0)))


def four_bits(**how: bool) -> Network:
    return network("residual", "onnxruntime-cpu", "int4", "channel", **how)[0]


@pytest.mark.parametrize("labels", [False, True])
def test_it_comes_nearer(labels: bool) -> None:
    *_, (_, state) = quantized.train(four_bits(), samples(), aim(labels=labels), SCHEDULE)
    assert len(state.judged) == SCHEDULE.epochs + 1
    assert min(state.judged) < (0.9 if labels else 0.6) * state.judged[0]


def test_the_nearest_epoch_is_kept() -> None:
    found, wild = four_bits(), replace(SCHEDULE, rate=0.5, epochs=2)
    before = [parameter.clone() for parameter in found.graph.parameters()]
    *_, (learner, state) = quantized.train(found, samples(), aim(), wild)
    assert min(state.judged) == state.judged[0]
    assert learner.judge() == pytest.approx(state.judged[0])
    assert all(torch.equal(one, now) for one, now in zip(before, found.graph.parameters(), strict=True))


@pytest.mark.parametrize("norms", [False, True])
def test_what_was_killed_goes_on_to_the_same_bits(norms: bool) -> None:
    def fresh() -> Network:
        found = four_bits(norms=norms)
        if norms:
            found.begin_norms([inputs(96, 0)])
        return found

    straight, first, again = fresh(), fresh(), fresh()
    *_, (_, whole) = quantized.train(straight, samples(), aim(), SCHEDULE)
    for learner, state in quantized.train(first, samples(), aim(), SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 3:
            break
    *_, (_, rest) = quantized.train(again, samples(), aim(), SCHEDULE, kept=kept)
    assert rest.judged == whole.judged
    assert rest.losses == whole.losses
    made = (found.settle().graph.state_dict() for found in (straight, again))
    assert all(torch.equal(one, other) for one, other in zip(*(one.values() for one in made), strict=True))


def test_what_was_killed_behind_its_last_epoch_is_there() -> None:
    short = replace(SCHEDULE, epochs=2)
    for learner, state in quantized.train(four_bits(), samples(), aim(), short):
        kept = loop.packed(learner, state)
    ((learner, again),) = quantized.train(four_bits(), samples(), aim(), short, kept=kept)
    assert again.judged == state.judged
    assert learner.judge() == pytest.approx(min(state.judged))


def test_where_it_broke_is_told() -> None:
    data = inputs(96, 0)[0].clone()
    data[50:] = torch.inf
    with pytest.raises(ConvkitError, match=r"the loss of epoch 1 is nan: .* is the first that is no number"):
        list(quantized.train(four_bits(), Arrays((data,)), aim(), SCHEDULE))


@pytest.mark.parametrize("layer", ["conv6", "scores"])
def test_where_it_broke_is_told_of_a_layer_inside(layer: str) -> None:
    """Weights of the others would be no numbers either, had there been a step against that gradient."""
    found = four_bits()
    own = next(one for one in found.layers if one.key == layer)
    assert own.bias is not None
    with torch.no_grad():
        own.bias[0] = torch.inf
    with pytest.raises(ConvkitError, match=rf"epoch 1 is nan: {layer}\b.* is the first that is no number") as caught:
        list(quantized.train(found, samples(), aim(), SCHEDULE))
    assert "--rate" in caught.value.hint
    assert "--resume" not in caught.value.hint
    others = [parameter for parameter in found.graph.parameters() if parameter is not own.bias]
    assert all(bool(parameter.isfinite().all()) for parameter in others)


def test_the_mode_of_gradients_is_left_alone() -> None:
    """Judging runs without gradients, and what is asked between two epochs with them."""
    assert torch.is_grad_enabled()
    for _ in quantized.train(four_bits(), samples(32), aim(), replace(SCHEDULE, epochs=1)):
        assert torch.is_grad_enabled()


WORKER = """
import sys, dataclasses, torch
from safetensors.torch import save_file
from convkit.compress.training import quantized
from convkit.compress.training.crew import crew
from tests.compress.training.test_quantized import SCHEDULE, aim, four_bits, samples
torch.set_num_threads(1)
found = four_bits()
how = dataclasses.replace(SCHEDULE, epochs=2)
with crew() as own:
    for _, state in quantized.train(found, samples(), aim(), how, shards=2, crew=own):
        pass
    if own.rank == 0:
        tensors = {n: t.detach().contiguous().clone() for n, t in found.graph.named_parameters()}
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
    assert len(one["losses"]) == 2
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


def test_shards_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConvkitError, match="a batch of 16 in 3 shards"):
        list(quantized.train(four_bits(), samples(32), aim(), SCHEDULE, shards=3))


class Noted(Arrays):
    """Notes how many samples each batch has."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.sizes: list[int] = []

    def epoch(self, number: int, batch: int, least: int, chance: torch.Generator) -> Iterator[Batch]:
        for inputs, labels in super().epoch(number, batch, least, chance):
            self.sizes.append(len(inputs[0]))
            yield inputs, labels


@pytest.mark.parametrize(("shards", "sizes"), [(4, [16, 16]), (2, [16, 16, 3])])
def test_a_last_batch_of_fewer_samples_than_shards_is_left_out(shards: int, sizes: list[int]) -> None:
    given = Noted(inputs(35, 0))
    *_, (_, state) = quantized.train(four_bits(), given, aim(), replace(SCHEDULE, epochs=1), shards=shards)
    assert given.sizes == sizes
    assert len(state.losses) == 1


def test_a_batch_of_a_loader_that_has_fewer_samples_than_shards_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "import torch", "def give():", "    return [torch.rand(16, 3, 8, 8), torch.rand(3, 3, 8, 8)]", ""
    (tmp_path / "short_loader.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    given = Loader("short_loader:give", plan_of("residual", "onnxruntime-cpu")[0].inputs)
    with pytest.raises(ConvkitError, match="a batch of 3 has no 4 parts"):
        list(quantized.train(four_bits(), given, aim(), SCHEDULE, shards=4))
