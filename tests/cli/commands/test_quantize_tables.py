"""`convkit quantize --tables`: another search from an earlier one's tables, with pins of its own or of that one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import plan as plans
from tests.cli import quantizable, steady
from tests.cli.commands.test_quantize import heavy_and_samples
from tests.cli.quantizable import Quantize
from tests.command_line import Convkit
from tests.compress.network import Net

OPTIONS = (*quantizable.QUICK, "--min-sqnr", "5")
LOW = ("--formats", "int8,int4", "--size", "<=0.25x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tables")
    heavy_and_samples(made / "net.onnx", made / "calib.npz")
    return made


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return quantizable.searching(convkit, folder, tmp_path, monkeypatch, OPTIONS)


def with_pins(plan: Path, pins: Mapping[str, str], path: Path) -> Path:
    lines = "".join(f"\n  {name}: {text}" for name, text in pins.items())
    path.write_text(plan.read_text().replace("pins: {}", f"pins:{lines}"))
    return path


def test_layers_may_be_pinned_that_the_earlier_search_tried_otherwise(quantize: Quantize, tmp_path: Path) -> None:
    first = tmp_path / "first"
    done = quantize(*LOW, output=first)
    assert done.code == 0, done.err
    assert plans.read(first / "plan.yaml").layers["conv3"].weight == "int4"
    mine = with_pins(first / "plan.yaml", {"conv3": "float"}, tmp_path / "mine.yaml")
    done = quantize("--tables", str(first / "tables.json"), "--plan", str(mine), "--bops", "<=0.9x")
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml")
    assert found.layers
    assert "conv3" not in found.layers


def test_pins_of_the_earlier_search_hold(quantize: Quantize, tmp_path: Path) -> None:
    first, pins = tmp_path / "first", {"conv3": "float"}
    done = quantize(*LOW, output=first)
    assert done.code == 0, done.err
    mine = with_pins(first / "plan.yaml", pins, tmp_path / "mine.yaml")
    second = tmp_path / "second"
    done = quantize("--plan", str(mine), "--formats", "int8", "--bops", "<=0.9x", output=second)
    assert done.code == 0, done.err
    done = quantize("--tables", str(second / "tables.json"), "--bops", "<=0.95x")
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml")
    assert found.pins == pins
    assert "conv3" not in found.layers


def test_what_was_kept_in_float_stays_there(quantize: Quantize, tmp_path: Path) -> None:
    first = tmp_path / "first"
    done = quantize("--formats", "int8", "--bops", "<=0.9x", "--keep", "conv3", output=first)
    assert done.code == 0, done.err
    done = quantize("--tables", str(first / "tables.json"))
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml").layers
    assert found
    assert "conv3" not in found


def test_tables_of_another_number_of_threads_are_refused(quantize: Quantize, tmp_path: Path) -> None:
    first = tmp_path / "first"
    done = quantize("--formats", "int8", "--bops", "<=0.9x", "--threads", "1", output=first)
    assert done.code == 0, done.err
    tables = str(first / "tables.json")
    done = quantize("--tables", tables, "--bops", "<=0.95x", "--threads", "2")
    hint = "leave --tables out and give --formats, to measure anew"
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {tables} was measured with another number of threads; {hint}\n"
    assert not (tmp_path / "out").exists()
    done = quantize("--tables", tables, "--bops", "<=0.95x", "--threads", "1")
    assert done.code == 0, done.err


def test_pins_that_allow_no_choice_are_one_line(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.compress.search.budget.front", lambda *_words, **_options: ())
    done = quantize("--formats", "int8", "--bops", "<=0.9x")
    assert (done.code, done.err.strip().splitlines()[-1]) == (
        2,
        "error: the pins allow no choice at all; pin fewer layers",
    )
    assert not (tmp_path / "out").exists()


def test_a_table_holds_for_the_sizes_that_it_was_measured_on(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net("N", 8, "H", "W", seed=1)
    net.head(net.op("Relu", net.conv("x", 64, 3)), 4)
    net.save(tmp_path / "free.onnx", "scores")
    sizes: list[tuple[int, ...]] = []
    tables = steady.tables

    def counted(jobs: Sequence[steady.latency.Job], schedule: object) -> list[steady.LatencyTable]:
        (job,) = jobs
        assert job.inputs is not None
        sizes.append(job.inputs["x"].shape)
        return tables(jobs, schedule)

    monkeypatch.setattr(steady.TABLE, counted)
    for size in (16, 16, 24):
        x = np.random.default_rng(0).standard_normal((16, 8, size, size)).astype(np.float32)
        np.savez(tmp_path / f"{size}.npz", x=x)
        files = {"model": tmp_path / "free.onnx", "data": tmp_path / f"{size}.npz"}
        done = quantize("--formats", "int8", "--bops", "<=0.9x", **files)
        assert done.code == 0, done.err
    assert sizes == [(1, 8, 16, 16), (1, 8, 24, 24)]
