"""A run keeps what is done, whatever ends it, and does nothing twice that has not changed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Convkit
from tests.compress.network import residual

CONVKIT = [sys.executable, "-m", "convkit.cli.main"]
STEPS = "steps: [list, {command: doctor, name: check}, {command: list, name: again, kind: targets}, doctor]"
NAMES = ["list", "check", "again", "doctor"]
NET = "import torch\ndef build(classes=4):\n    torch.manual_seed(0)\n    return torch.nn.Conv2d(3, classes, 3)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(STEPS)
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    return ["run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), *more]


def states(convkit: Convkit, folder: Path) -> list[str]:
    plan = json.loads(convkit(*words(folder, "--dry-run", "--json")).out)
    return [step["state"] for step in plan["steps"]]


def test_a_run_prints_what_its_steps_print(convkit: Convkit, folder: Path) -> None:
    result = convkit(*words(folder))
    assert result.code == 0
    assert result.out.startswith(convkit("list").out)
    assert "4/4 doctor …" in result.err


def test_a_second_run_does_nothing_and_prints_the_same(convkit: Convkit, folder: Path) -> None:
    first, second = convkit(*words(folder)), convkit(*words(folder))
    assert first.out == second.out
    assert second.err.count("kept from before") == 4


def test_force_does_every_step_again(convkit: Convkit, folder: Path) -> None:
    convkit(*words(folder))
    assert "kept" not in convkit(*words(folder, "--force")).err


def test_a_dry_run_does_nothing_and_says_what_would_be_done(convkit: Convkit, folder: Path) -> None:
    assert states(convkit, folder) == ["would run"] * 4
    assert not (folder / "out").exists()
    convkit(*words(folder))
    assert states(convkit, folder) == ["kept"] * 4
    (folder / "recipe.yaml").write_text(STEPS.replace("targets", "engines"))
    assert states(convkit, folder) == ["kept", "kept", "would run", "kept"]


def test_json_is_the_report_and_nothing_else(convkit: Convkit, folder: Path) -> None:
    result = convkit(*words(folder, "--json"))
    assert json.loads(result.out) == json.loads((folder / "out" / "report.json").read_text())
    assert [step["name"] for step in json.loads(result.out)["steps"]] == NAMES


def test_another_model_or_another_code_is_another_step(
    convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "kept_net.py").write_text(NET)
    recipe = "model: {path: 'kept_net:build', shape: 'input:1x3x8x8'}\nsteps: [inspect]"
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert convkit(*words(tmp_path)).code == 0
    assert states(convkit, tmp_path) == ["kept"]
    (tmp_path / "recipe.yaml").write_text(recipe.replace("8x8", "9x9"))
    assert states(convkit, tmp_path) == ["would run"]
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "kept_net.py").write_text(NET.replace("3)", "5)"))
    assert states(convkit, tmp_path) == ["would run"]


def test_a_step_that_fails_is_named_and_ends_the_run(convkit: Convkit, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    (tmp_path / "recipe.yaml").write_text("model: net.onnx\nsteps: [list, inspect, doctor]")
    result = convkit(*words(tmp_path))
    assert result.code == 2
    assert "error: step inspect: " in result.err
    assert states(convkit, tmp_path) == ["kept", "would run", "would run"]


def test_two_runs_do_not_share_a_folder(convkit: Convkit, folder: Path) -> None:
    (folder / "out" / ".steps").mkdir(parents=True)
    with (folder / "out" / ".steps" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = convkit(*words(folder))
    assert result.code == 2
    assert "another run writes to" in result.err


def test_an_output_that_is_a_file(convkit: Convkit, folder: Path) -> None:
    (folder / "out").write_text("")
    result = convkit(*words(folder))
    assert result.code == 2
    assert "cannot write" in result.err


def test_an_output_with_the_report_of_something_else(convkit: Convkit, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "report.json").write_text("mine")
    result = convkit(*words(folder))
    assert (result.code, "holds 'report.json', which no run wrote" in result.err) == (2, True)
    assert (folder / "out" / "report.json").read_text() == "mine"


def started(folder: Path, records: int) -> subprocess.Popen[str]:
    """A run in a process of its own, in the middle of the step after `records` finished ones."""
    process = subprocess.Popen([*CONVKIT, *words(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kept = folder / "out" / ".steps"
    while not (kept / "lock").exists() or len(list(kept.glob("*.json"))) < records:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("records", [0, 1, 2])
def test_a_run_that_is_killed_goes_on(convkit: Convkit, folder: Path, records: int) -> None:
    process = started(folder, records)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert states(convkit, folder)[:records] == ["kept"] * records
    assert states(convkit, folder)[-1] == "would run"
    resumed = convkit(*words(folder, "--resume"))
    assert resumed.code == 0
    assert resumed.err.count("kept from before") >= records
    undisturbed = convkit("run", str(folder / "recipe.yaml"), "-o", str(folder / "other"))
    assert resumed.out == undisturbed.out
    assert (folder / "out" / "report.json").read_bytes() == (folder / "other" / "report.json").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_exit_130_and_goes_on(convkit: Convkit, folder: Path, number: signal.Signals) -> None:
    process = started(folder, 1)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "interrupted, state saved" in error
    assert convkit(*words(folder, "--resume")).code == 0


def test_a_record_cut_short_is_no_record(convkit: Convkit, folder: Path) -> None:
    convkit(*words(folder))
    file = folder / "out" / ".steps" / "check.json"
    os.truncate(file, file.stat().st_size // 2)
    assert states(convkit, folder) == ["kept", "would run", "kept", "kept"]


EXPORTS = """
model: {path: 'run_net:build', shape: 'input:Nx3x8x8'}
steps:
  - {command: export, name: one}
  - {command: export, name: two, model: "${one}/model.onnx"}
"""


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose second step reads what the first one wrote."""
    (tmp_path / "run_net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(EXPORTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


REHEARSED = "model: net.onnx\nsteps: [{command: quantize, data: %s}]"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("fits.npz", ""),
        ("large.npz", "step quantize: {0}/large.npz: input 'x' wants float32 [N, 3, 8, 8], got float32 [4, 3, 9, 9]"),
        ("double.npz", "got float64 [4, 3, 8, 8]; convert it with .astype"),
        ("other.npz", "step quantize: {0}/other.npz has no array for input 'x'; it has: y"),
        ("text.npz", "step quantize: {0}/text.npz is no readable .npz"),
        ("photos", "step quantize: there is no image in {0}/photos"),
        ("rehearsed_net:samples", "step quantize: rehearsed_net:samples: there is no module 'rehearsed_net'"),
    ],
)
def test_a_dry_run_looks_into_model_and_data(convkit: Convkit, tmp_path: Path, data: str, line: str) -> None:
    residual().save(tmp_path / "net.onnx", "scores")
    for name, size, dtype in (("fits", 8, "f4"), ("large", 9, "f4"), ("double", 8, "f8")):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((4, 3, size, size), dtype))
    np.savez(tmp_path / "other.npz", y=np.ones(4))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "photos").mkdir()
    (tmp_path / "recipe.yaml").write_text(REHEARSED % f"'{data}'")
    result = convkit(*words(tmp_path, "--dry-run"))
    assert (result.code, bool(result.out)) == ((2, False) if line else (0, True)), result.err
    assert line.format(tmp_path) in result.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_switch(convkit: Convkit, tmp_path: Path) -> None:
    """A command with a model, but without shapes."""
    residual().save(tmp_path / "net.onnx", "scores")
    (tmp_path / "recipe.yaml").write_text("steps: [{command: switch, model: net.onnx, bits: 4}]")
    assert states(convkit, tmp_path) == ["would run"]


def test_a_table_for_people_is_none_in_a_report(convkit: Convkit, tmp_path: Path) -> None:
    bench = "{command: bench, candidates: ['null:1ms'], budget: 0.1, markdown: true}"
    (tmp_path / "recipe.yaml").write_text(f"steps: [{bench}]")
    result = convkit(*words(tmp_path, "--json"))
    assert result.code == 0, result.err
    assert json.loads(result.out)["steps"][0]["report"]["candidates"]


def test_what_fails_is_told_and_in_the_report(convkit: Convkit, tmp_path: Path) -> None:
    """By what it measured, too; nothing of an earlier run is taken for this one's."""
    bench = "{command: bench, candidates: ['null:1ms', 'null:2ms'], budget: 0.5, gate: 'p50 <= LIMITx'}"
    (tmp_path / "recipe.yaml").write_text(f"steps: [list, {bench.replace('LIMIT', '9')}]")
    assert convkit(*words(tmp_path)).code == 0
    assert len(json.loads((tmp_path / "out/report.json").read_text())["steps"]) == 2
    (tmp_path / "recipe.yaml").write_text(f"steps: [list, {bench.replace('LIMIT', '0.5')}]")
    result = convkit(*words(tmp_path, "--json"))
    assert result.code == 1
    assert "error: step bench: 1 of 1 gates failed; the first: null:2ms, p50 <= 0.5x: measured " in result.err
    report = json.loads(result.out)
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert [step["name"] for step in report["steps"]] == ["list"]
    assert report["failed"]["exit_code"] == 1
    assert [gate["state"] for gate in report["failed"]["report"]["gates"]] == ["fail"]


def test_a_report_that_lies_about_is_no_steps(convkit: Convkit, folder: Path) -> None:
    """A step of this name had a folder once; what it is now only prints."""
    (folder / "out" / "list").mkdir(parents=True)
    (folder / "out" / "list" / "report.json").write_text('"stale"')
    assert "stale" not in convkit(*words(folder, "--json")).out


def test_what_was_tampered_with_is_made_again(convkit: Convkit, exports: Path) -> None:
    assert convkit(*words(exports)).code == 0
    assert states(convkit, exports) == ["kept", "kept"]
    model = exports / "out" / "one" / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good[:-1])
    assert states(convkit, exports) == ["would run", "would run"]
    assert convkit(*words(exports, "--resume")).code == 0
    assert model.read_bytes() == good


def test_a_killed_run_ends_in_the_same_bytes(convkit: Convkit, exports: Path) -> None:
    process = started(exports, 1)
    process.kill()
    process.communicate()
    assert convkit(*words(exports, "--resume")).err.count("kept from before") == 1
    assert convkit("run", str(exports / "recipe.yaml"), "-o", str(exports / "other")).code == 0
    for step in ("one", "two"):
        files = sorted((exports / "other" / step).iterdir())
        assert {file.name for file in files} >= {"model.onnx", "manifest.json", "report.json"}
        for file in files:
            if file.name != "manifest.json":
                assert (exports / "out" / step / file.name).read_bytes() == file.read_bytes()
    assert not list((exports / "out").glob(".*.part"))
