"""Steps on the machines of a Ray cluster: the same result as one after the other, whatever is lost on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from convkit.cli import cluster, journal, performing, spreading
from convkit.cli.cluster import Cluster, Ended, Machine
from convkit.cli.journal import Done, Journal
from convkit.cli.step import Step
from convkit.compress.errors import ConvkitError, NotAvailableError
from tests.command_line import Convkit

TARGET = "openvino-cpu"
NET = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    )
"""
FATAL = '''
"""Samples whose process is killed once, behind the first epoch, where a file asks for it."""
import os, pathlib, signal, threading, time
import numpy as np
FOLDER = pathlib.Path(__file__).parent
def samples():
    if (FOLDER / "fatal").exists() and not (FOLDER / "killed").exists():
        threading.Thread(target=kill, daemon=True).start()
    return dict(np.load(FOLDER / "samples.npz"))
def kill():
    while not list(FOLDER.glob("cluster/.weights-1.training/*.safetensors")):
        time.sleep(0.001)
    try:
        (FOLDER / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
'''
RECIPE = """
model: {path: 'spread_net:build', shape: 'input:Nx1x6x6'}
data: {learnt: 'spread_data:samples'}
target: openvino-cpu
steps:
  - {command: train, name: weights, data: learnt, epochs: 12, each: {seed: [0, 1]}}
  - command: export
    name: net
    model: {path: 'spread_net:build', shape: 'input:Nx1x6x6', weights: '${weights-1}/weights.safetensors'}
    target: openvino
  - {command: bench, candidates: ['${net}/model.onnx', '${net}/model.onnx'], budget: 0.3}
"""
SEARCH = """
model: {path: 'spread_net:build', shape: 'input:Nx1x6x6'}
data: {learnt: 'spread_data:samples'}
target: openvino-cpu
formats: int8
steps:
  - {command: sensitivity, name: sens, data: learnt}
  - {command: quantize, data: learnt, sensitivity: '${sens}', seed: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", input=random.normal(size=(48, 1, 6, 6)).astype("f4"), labels=np.arange(48) % 3)
    for name, text in {"spread_net.py": NET, "spread_data.py": FATAL, "recipe.yaml": RECIPE}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("spread_net", "spread_data"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two machines, one of which has the target."""
    from ray.cluster_utils import Cluster as Machines

    made = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1, resources={TARGET: 1})
        yield made.address
    finally:
        made.shutdown()


def test_a_run_on_a_cluster_is_the_run_whatever_is_lost(convkit: Convkit, folder: Path, address: str) -> None:
    """Trained at once on two machines; the process of one training is killed and goes on at another one."""
    serial = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "serial"))
    (folder / "fatal").touch()
    spread = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "cluster"), "--ray", address)
    assert (serial.code, spread.code) == (0, 0), spread.err
    assert (folder / "killed").exists()
    assert "weights-1" in spread.err
    assert spread.err.count("its process was lost") == 1
    assert "(raylet)" not in spread.err
    assert "\x1b" not in spread.err + spread.out
    for file in ("weights-0/weights.safetensors", "weights-1/weights.safetensors", "net/model.onnx"):
        assert (folder / "cluster" / file).read_bytes() == (folder / "serial" / file).read_bytes()
    reports = [json.loads((folder / name / "report.json").read_text())["steps"] for name in ("serial", "cluster")]
    assert [step["name"] for step in reports[0]] == [step["name"] for step in reports[1]]
    again = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "cluster"))
    assert again.err.count("kept from before") == 4
    assert again.out == spread.out


def test_sensitivity_is_found_where_the_target_is_not(
    convkit: Convkit, folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine with the target reads it there: it knows its seed, before a search takes its time."""
    where: list[tuple[frozenset[str], str | None]] = []
    start = Cluster.start

    def noted(self: Cluster, machine: Machine, target: str | None, *words: Any) -> Any:
        where.append((machine.targets, target))
        return start(self, machine, target, *words)

    monkeypatch.setattr(Cluster, "start", noted)
    (folder / "recipe.yaml").write_text(SEARCH)
    found = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", address)
    assert where == [(frozenset(), None), (frozenset({TARGET}), TARGET)], found.err
    assert (found.code, "sensitivity.json is of another --seed" in found.err) == (2, True), found.err
    assert (folder / "out" / "sens" / "sensitivity.json").exists()


def test_a_step_that_fails_is_named_and_the_others_are_kept(convkit: Convkit, folder: Path, address: str) -> None:
    text = RECIPE.replace("budget: 0.3", "budget: 0.3, gate: 'p50 <= 0.00001us'")
    (folder / "recipe.yaml").write_text(text)
    words = ["run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", address]
    found = convkit(*words)
    assert found.code == 1, found.err
    assert any("p50 <= 0.00001us" in line and "fail" in line for line in found.out.splitlines())
    (folder / "recipe.yaml").write_text(text.replace("target: openvino\n", "target: nowhere\n"))
    found = convkit(*words)
    assert found.code == 2
    assert "step net: " in found.err
    assert found.err.count("kept from before") == 2


def test_a_target_that_no_machine_has(convkit: Convkit, folder: Path, address: str) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("openvino-cpu", "onnxruntime-cpu"))
    found = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", address)
    assert found.code == 3
    assert "no machine of the Ray cluster has the target onnxruntime-cpu; on one that has it: ray start" in found.err


def test_a_cluster_of_this_machine_alone_whatever_others_there_are(
    convkit: Convkit, folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code of a user that fails, or leaves, ends the run as it does without a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    words = ["run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", "local"]
    (folder / "recipe.yaml").write_text(RECIPE[: RECIPE.index("  - command: export")])
    for text, code, told in (("raise SystemExit(5)", 5, ""), ("1 / 0", 2, "ZeroDivisionError"), ("", 0, "done")):
        (folder / "spread_net.py").write_text(NET.replace("torch.manual_seed(0)", f"torch.manual_seed(0); {text}"))
        found = convkit(*words)
        assert (found.code, told in found.err) == (code, True), found.err


def test_a_run_that_is_ended_by_sigterm_is_exit_130(folder: Path, address: str) -> None:
    (folder / "fatal").touch()
    (folder / "spread_data.py").write_text(FATAL.replace("def samples():", "def samples():\n    time.sleep(60)"))
    words = ["run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", address]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-m", "convkit.cli.main", *words], stderr=subprocess.PIPE, text=True, env=paths
    )
    assert process.stderr is not None
    assert "weights-0" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted, state saved" in error


def test_a_machine_with_another_folder_of_the_name_is_told(tmp_path: Path) -> None:
    (tmp_path / ".steps").mkdir()
    book = Journal(tmp_path)
    book.leave("here")
    with pytest.raises(ConvkitError, match="does not see .*; machines of a cluster share a file system"):
        performing.perform_there(Step("one", "list", {}), book, "digest", "there", goes_on=False)


def test_a_step_that_another_process_ended_meanwhile_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".steps").mkdir()
    book, step = Journal(tmp_path), Step("one", "list", {"kind": "targets"})
    book.leave("here")
    made = performing.perform_there(step, book, "digest", "here", goes_on=False)
    assert made.done is not None
    assert "openvino-cpu" in made.printed
    book.write(step, Done("digest", ("list",), "of another"))
    assert performing.perform_there(step, book, "digest", "here", goes_on=True).printed == "of another"
    assert performing.perform_there(step, book, "digest", "here", goes_on=False).printed == made.printed
    failing = Step("one", "list", {"kind": "nothing"})
    with pytest.raises(click.UsageError):
        performing.perform_there(failing, book, "digest", "here", goes_on=False)
    assert book.done(failing, "digest") is None


class Here(Cluster):
    """This process in place of the machines that Ray knows."""

    def machines(self, _target: str | None = None) -> list[Machine]:
        return [Machine("1", "here", 1.0, 0.0, frozenset())]

    def start(self, machine: Machine, _target: str | None, call: Callable[..., object], *given: object) -> object:
        began = Ended(machine, call(*given))
        self.under_way[began] = machine
        return began

    def wait(self) -> tuple[object, Ended[Any]]:
        began = next(iter(self.under_way))
        del self.under_way[began]
        return began, began


def test_force_does_steps_again_where_a_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".steps").mkdir()
    book, step = Journal(tmp_path), Step("one", "list", {"kind": "targets"})
    kept = Done(journal.digest(step, {}), ("list",), "of before")
    for force in (False, True):
        book.write(step, kept)
        made = spreading.Spread([step], book, Here(sys.stdout, ""), resume=True, force=force, quiet=True).end()
        assert (made["one"] == kept) is not force


def test_a_head_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.time, "sleep", lambda _seconds: None)
    with pytest.raises(NotAvailableError, match="the head of the Ray cluster at 127.0.0.1:1 is lost; start it"):
        cluster._stays("127.0.0.1:1")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "host:port"])
def test_a_head_that_does_not_answer(convkit: Convkit, folder: Path, address: str) -> None:
    found = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", address)
    assert found.code == 3
    assert found.err.endswith(f"no head of a Ray cluster answers at {address}; start one: ray start --head\n")


def test_ray_that_is_not_installed(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    found = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--ray", "auto")
    assert (found.code, "pip install 'convkit[ray]'" in found.err) == (3, True)


@pytest.mark.parametrize(
    ("command", "target", "there"),
    [
        ("bench", "openvino-cpu", "openvino-cpu"),
        ("quantize", "my/board.yaml", "board"),
        ("export", "trt-rtx", "trt-rtx"),
        ("export", "onnxruntime", None),
        ("train", "openvino-cpu", None),
        ("sensitivity", "openvino-cpu", None),
        ("bench", None, None),
    ],
)
def test_what_measures_or_builds_is_done_where_its_target_is(command: str, target: str | None, there: str) -> None:
    assert spreading.target(Step("one", command, {"target": target})) == there


def test_a_machine_that_lost_a_call_is_for_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Machine(key, key, 1.0, 0.0, frozenset({TARGET})) for key in "12")
    monkeypatch.setattr(Cluster, "machines", lambda _self, _target: [first, second])
    made = Cluster(sys.stdout, "")
    assert made.free(TARGET) == first
    made.doubtful.add("1")
    assert made.free(TARGET) == second
    made.under_way["call"] = second
    assert made.free(TARGET) is None
    made.doubtful.add("2")
    assert made.free(TARGET) == first
