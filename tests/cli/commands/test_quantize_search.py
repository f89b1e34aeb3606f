"""A search that is killed, resumed, begun from tables and held to pins, on an engine whose times are always alike."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from convkit.cli.step import Step, words
from convkit.compress import plan as plans
from convkit.compress.search import tables
from tests import here
from tests.cli import quantizable, steady
from tests.cli.commands.test_quantize import heavy_and_samples
from tests.cli.quantizable import Quantize
from tests.command_line import Convkit
from tests.compress.network import residual

ROOT = Path(__file__).parents[3]
OPTIONS = ("--target", "onnxruntime-cpu", "--budget", "1", "--threads", "1", "--no-tune", "--min-sqnr", "5")
WISH = ("--formats", "int8,int4", "--size", "<=0.22x")
KILLS = ("remedy 2", "sensitivity 1", "table 1", "measure 1", "measure 2", "measure 3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("search")
    heavy_and_samples(made / "net.onnx", made / "calib.npz")
    return made


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """A search killed before each of its stages, and resumed each time; what it did is in log."""
    out, typed = folder / "out", ("-m", "net.onnx", "--data", "calib.npz", *OPTIONS, *WISH, "-o", "out", "--resume")
    for kill in (*KILLS, "never"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.steady", "quantize", *typed],
            cwd=folder,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]),
                "XDG_CACHE_HOME": "/dev/null/nowhere",
                "LOG": str(folder / "log"),
                "KILL": kill,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (0 if kill == "never" else -9), done.stderr
        assert out.exists() == (kill == "never")
        assert (folder / ".out.search").exists() == (kill != "never")
    return out


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return quantizable.searching(convkit, folder, tmp_path, monkeypatch, OPTIONS)


def read(out: Path, name: str = "report.json") -> dict[str, object]:
    found: dict[str, object] = json.loads((out / name).read_text())
    return found


def test_what_was_finished_is_not_done_again(killed: Path, folder: Path) -> None:
    done = Counter((folder / "log").read_text().splitlines())
    assert done == {"remedy": 2, "sensitivity": 2, "table": 1, "truth": 1, "measure": 4}
    assert not (folder / ".out.search").exists()
    assert read(killed)["search"]["evaluations"] == 0, "of the network that is kept it was done before the last kill"


def test_a_resumed_search_ends_as_one_that_was_never_killed(killed: Path, quantize: Quantize, tmp_path: Path) -> None:
    done = quantize(*WISH)
    assert done.code == 0, done.err
    for name in ("model.onnx", "plan.yaml", "tables.json", "front.svg", "layers.svg"):
        assert (killed / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    search = read(tmp_path / "out")["search"]
    assert len(search["trials"]) + 2 <= search["evaluations"] <= len(search["trials"]) + 4
    assert search["builds"] >= 4
    assert 0 < search["pairs"] <= 24
    assert list(search["seconds"]) == ["remedies", "knobs", "sensitivity", "latency", "strongest", "rounds", "final"]
    assert [line for line in done.err.splitlines() if " measured 0." in line]


def test_choices_are_compared_on_a_few_of_many_samples(quantize: Quantize, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((48, 8, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "many.npz", x=x)
    done = quantize(*WISH, data=tmp_path / "many.npz")
    assert done.code == 0, done.err
    search = read(tmp_path / "out")["search"]
    assert 0 < search["glances"] < len(search["trials"])
    assert search["evaluations"] <= 2 + 4, "of remedies and of finalists"


def test_another_search_in_the_same_place_begins_anew(quantize: Quantize, tmp_path: Path) -> None:
    stale = tmp_path / ".out.search"
    stale.mkdir()
    (stale / "key.json").write_text('"another"')
    (stale / "remedies done.json").write_text("true")
    assert quantize("--resume").code == 0
    assert read(tmp_path / "out")["attempts"]
    assert not stale.exists()


def test_a_run_that_resumes_lets_its_search_resume(tmp_path: Path) -> None:
    step = Step("quantize", "quantize", {"model": "net.onnx", "data": "calib.npz", "formats": "int8"})
    assert "--resume" in words(step, {}, tmp_path, resume=True)
    assert "--resume" not in words(step, {}, tmp_path)


def test_a_new_budget_is_built_from_tables_alone(
    killed: Path, quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (steady.TABLE, "convkit.compress.search.sensitivity.sensitivity"):
        monkeypatch.delattr(place)
    done = quantize("--tables", str(killed / "tables.json"), "--size", "<=0.3x")
    assert done.code == 0, done.err
    search = read(tmp_path / "out")["search"]
    assert search["pairs"] == 0
    assert set(search["seconds"]) == {"remedies", "knobs", "rounds", "final"}
    assert (tmp_path / "out" / "model.onnx").stat().st_size <= 0.3 * (killed.parent / "net.onnx").stat().st_size
    known, before = (tables.read(out / "tables.json") for out in (tmp_path / "out", killed))
    assert known.trials[: len(before.trials)] == before.trials
    assert len(known.trials) > len(before.trials)


def test_without_the_targets_own_format_no_network_is_in_it(quantize: Quantize, tmp_path: Path) -> None:
    done = quantize("--formats", "int4", "--bops", "<=0.1x")
    assert done.code == 0, done.err
    assert "uniform" not in {network["name"] for network in read(tmp_path / "out")["networks"]}
    weights = {layer.weight for layer in plans.read(tmp_path / "out" / "plan.yaml").layers.values()}
    assert "int4" in weights
    assert weights <= {"int4", None}


def test_pins_are_kept_and_survive_the_search(killed: Path, quantize: Quantize, tmp_path: Path) -> None:
    first = plans.read(killed / "plan.yaml")
    assert first.layers["conv3"].weight == "int4"
    text = (killed / "plan.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        text.replace("pins: {}", "pins:\n  conv3: int8\n  conv0: float\n  flatten7: float")
    )
    done = quantize("--plan", str(tmp_path / "mine.yaml"), "--formats", "int8", "--bops", "<=0.5x")
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml")
    assert found.pins == {"conv3": "int8", "conv0": "float", "flatten7": "float"}
    own = here.target("onnxruntime-cpu").weight  # the pin goes from processor to processor
    assert found.layers["conv3"].weight == own
    assert "conv0" not in found.layers
    assert read(tmp_path / "out")["search"]["pins"] == {
        "conv3": f"{own}/uint8",
        "conv0": "fp32",
        "flatten7": "fp32",
    }
    assert [attempt["remedy"] for attempt in read(tmp_path / "out")["attempts"]] == ["the plan given"]


def test_sizes_are_those_of_files(killed: Path) -> None:
    known, files = tables.read(killed / "tables.json"), [killed.parent / "net.onnx", killed / "model.onnx"]
    given, made = (file.stat().st_size for file in files)
    assert known.original.bytes == given
    assert made <= 0.22 * given
    assert made in {trial.measured.bytes for trial in known.trials}


def test_a_fixed_batch_is_measured_as_it_is(convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    residual(4, 3, 8, 8).save(tmp_path / "net.onnx", "scores")
    np.savez(tmp_path / "calib.npz", **quantizable.samples(16))
    quantize = quantizable.searching(convkit, tmp_path, tmp_path, monkeypatch, (*OPTIONS, "--max-drop", "100"))
    done = quantize("--formats", "int8", "--bops", "<=0.9x")
    assert done.code == 0, done.err
    assert plans.read(tmp_path / "out" / "plan.yaml").layers


@pytest.mark.parametrize(("key", "message"), [("model", "is for model abab"), ("target", "is for openvino-cpu, not")])
def test_pins_of_another_model_or_target_are_refused(
    killed: Path, quantize: Quantize, tmp_path: Path, key: str, message: str
) -> None:
    others = {"model": "ab" * 32, "target": "openvino-cpu"}
    own = plans.read(killed / "plan.yaml")
    text = (killed / "plan.yaml").read_text().replace(str(getattr(own, key)), others[key], 1)
    (tmp_path / "mine.yaml").write_text(text)
    done = quantize("--plan", str(tmp_path / "mine.yaml"), "--formats", "int8", "--dry-run")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err


def test_a_plan_without_wishes_is_applied_as_it_is(killed: Path, quantize: Quantize, tmp_path: Path) -> None:
    done = quantize("--plan", str(killed / "plan.yaml"))
    assert done.code == 0, done.err
    assert plans.read(tmp_path / "out" / "plan.yaml").layers == plans.read(killed / "plan.yaml").layers


def test_a_dry_run_tells_the_time_of_each_stage_and_the_evaluations(quantize: Quantize, tmp_path: Path) -> None:
    done = quantize("--dry-run", *WISH)
    assert done.code == 0, done.err
    assert "the search takes about" in done.out
    assert "makes 2 to 43 full evaluations" in done.out
    stages = ["remedies", "sensitivity", "latency table", "strongest pairs", "rounds", "final contest"]
    assert [line[2:18].strip() for line in done.out.splitlines() if line.startswith("  ")] == stages
    assert list(tmp_path.iterdir()) == []


def pinned(killed: Path, pin: str) -> str:
    return (killed / "plan.yaml").read_text().replace("pins: {}", f"pins: {{{pin}}}")


BAD_PINS = {
    "conv33: int8": "there is no layer 'conv33' to pin; did you mean 'conv3'?",
    "conv3: int99": "int99",
    "flatten7: int8": "layer 'flatten7' is pinned to int8, which it cannot run in; it can run in float, uint8",
    "conv3: uint8": "layer 'conv3' is pinned to uint8, which it cannot run in; it can run in float, int",
}


@pytest.mark.parametrize("pin", BAD_PINS)
def test_a_pin_that_cannot_be_is_one_line(killed: Path, quantize: Quantize, tmp_path: Path, pin: str) -> None:
    (tmp_path / "mine.yaml").write_text(pinned(killed, pin))
    done = quantize("--plan", str(tmp_path / "mine.yaml"), "--formats", "int8")
    assert done.code == 2
    assert BAD_PINS[pin] in done.err.splitlines()[-1]
    if "there is no layer" in BAD_PINS[pin]:
        assert done.err.count("\n") == 1, "told before anything ran"
    assert not (tmp_path / "out").exists()


def test_tables_that_do_not_fit_are_one_line(killed: Path, quantize: Quantize, tmp_path: Path) -> None:
    file = killed / "tables.json"
    other = tmp_path / "other.json"
    other.write_text(file.read_text().replace(tables.read(file).model, "ab" * 32))
    cases = {
        "holds the tables of another model": ("--tables", str(other)),
        "--tables decides which formats there are": ("--tables", str(file), "--formats", "int8"),
        "--keep says nothing to --tables": ("--tables", str(file), "--keep", "conv3"),
        "cannot read tables": ("--tables", str(tmp_path / "none.json")),
    }
    for message, typed in cases.items():
        done = quantize(*typed, "--size", "<=0.3x")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
    done = quantize("--tables", str(file), "--target", "openvino-cpu")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
