"""`convkit choose`: a new budget from saved tables, without the network, its engine or torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convkit.compress import plan as plans
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import Plan
from convkit.compress.search import budget, tables
from convkit.compress.search.problem import Problem
from convkit.compress.search.refine import Trial
from convkit.compress.search.tables import Tables
from tests.command_line import Convkit
from tests.compress.search import instance

MODEL = "ab" * 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    problem = instance.network(12, 14)
    original = problem.cost(dict.fromkeys(problem.options, FLOAT))
    return Tables(MODEL, problem, {}, (), "onnxruntime-cpu", estimated=False, original=original)


@pytest.fixture
def folder(saved: Tables, tmp_path: Path) -> Path:
    tables.write(tmp_path / "tables.json", saved)
    return tmp_path


def limit(saved: Tables, part: float) -> float:
    return part * saved.original.bytes


def test_the_choice_is_the_exact_one_and_called_a_prediction(convkit: Convkit, saved: Tables, folder: Path) -> None:
    done = convkit("choose", str(folder / "tables.json"), "--size", "<=0.3x", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    best = budget.solve(saved.problem, {"bytes": limit(saved, 0.3)})
    assert best is not None
    assert said["layers"] == {name: str(option) for name, option in best.formats.items()}
    assert said["predicted"]["loss"] == best.cost.loss
    assert said["measured"] is None
    shown = convkit("choose", str(folder), "--size", "<=0.3x")
    assert shown.code == 0
    assert "predicted for onnxruntime-cpu" in shown.out
    assert "prediction" in shown.out


def test_what_was_measured_corrects_the_tables_and_is_told(convkit: Convkit, saved: Tables, tmp_path: Path) -> None:
    best = budget.solve(saved.problem, {"bytes": limit(saved, 0.3)})
    assert best is not None
    measured = best.cost.__class__(best.cost.loss * 1.2, best.cost.seconds * 1.1, best.cost.bytes, best.cost.bops)
    trials = (Trial(best.formats, best.cost, measured),)
    known = Tables(MODEL, saved.problem, {}, trials, original=saved.original)
    tables.write(tmp_path / "tables.json", known)
    assert tables.read(tmp_path / "tables.json") == known
    said = json.loads(convkit("choose", str(tmp_path), "--size", "<=0.3x", "--json").out)
    assert said["measured_networks"] == 1
    assert said["predicted"]["loss"] > best.cost.loss
    if said["layers"] == {name: str(option) for name, option in best.formats.items()}:
        assert said["measured"]["loss"] == measured.loss


def test_other_precisions_are_chosen_from_as_well(convkit: Convkit, saved: Tables, tmp_path: Path) -> None:
    """Which of them has the least loss within the budget; a front has the best of both."""
    plan = plans.dump(Plan(MODEL, "onnxruntime-cpu"))
    rough = Problem(
        {
            name: {option: replace(cost, loss=cost.loss + 1.0, bytes=cost.bytes / 2) for option, cost in known.items()}
            for name, known in saved.problem.options.items()
        },
        saved.problem.edges,
        saved.problem.groups,
        saved.problem.fixed,
    )
    tables.write(tmp_path / "tables.json", replace(saved, plan=plan, problem=rough, floating="bf16"))
    tables.write(tmp_path / "tables-fp32.json", replace(saved, plan=plan))
    for part, problem in ((0.3, saved.problem), (0.1, rough)):
        said = json.loads(convkit("choose", str(tmp_path), "--size", f"<={part}x", "--json").out)
        best = budget.solve(problem, {"bytes": limit(saved, part)})
        assert best is not None
        assert said["predicted"]["loss"] == pytest.approx(best.cost.loss)
    front = json.loads(convkit("choose", str(tmp_path), "--front", "--json").out)["front"]
    losses = [choice["predicted"]["loss"] for choice in front]
    assert losses == sorted(losses)
    assert losses[0] < 1.0


def test_bytes_are_those_of_the_files_that_were_made(convkit: Convkit, saved: Tables, tmp_path: Path) -> None:
    """What files have beside their weights is told by one of them, and the original, all in float, is none."""
    best, beside = budget.solve(saved.problem, {"bytes": limit(saved, 0.3)}), 1e5
    assert best is not None
    floats = saved.problem.choice(dict.fromkeys(saved.problem.options, FLOAT))
    trials = (
        Trial(best.formats, best.cost, replace(best.cost, bytes=best.cost.bytes + beside)),
        Trial(floats.formats, floats.cost, saved.original),
    )
    tables.write(tmp_path / "tables.json", Tables(MODEL, saved.problem, {}, trials, original=saved.original))
    said = json.loads(convkit("choose", str(tmp_path), "--size", "<=0.3x", "--json").out)
    chosen = {name: Option.parse(text) for name, text in said["layers"].items()}
    assert said["predicted"]["bytes"] == pytest.approx(saved.problem.cost(chosen).bytes + beside)
    assert said["predicted"]["bytes"] <= limit(saved, 0.3)


def test_the_whole_front_goes_from_the_least_loss_to_the_least_time(convkit: Convkit, folder: Path) -> None:
    found = json.loads(convkit("choose", str(folder), "--front", "--points", "6", "--json").out)["front"]
    seconds = [choice["predicted"]["seconds"] for choice in found]
    assert len(found) >= 4
    assert seconds == sorted(seconds, reverse=True)
    shown = convkit("choose", str(folder), "--front", "--points", "6")
    assert shown.code == 0
    assert max(map(len, shown.out.splitlines())) <= 100
    assert "dB upwards, time to the right" in shown.out


def test_pins_are_kept(convkit: Convkit, saved: Tables, folder: Path) -> None:
    (folder / "plan.yaml").write_text(plans.dump(Plan(MODEL, "t", pins={"layer3": "float", "layer4": "int4"})))
    words = ("choose", str(folder), "--size", "<=0.5x", "--json")
    said = json.loads(convkit(*words, "--plan", str(folder / "plan.yaml")).out)
    assert said["layers"]["layer3"] == "fp32"
    assert Option.parse(said["layers"]["layer4"]).weight == "int4"
    free = json.loads(convkit(*words).out)
    assert said["predicted"]["loss"] >= free["predicted"]["loss"]


def test_an_unreachable_budget_is_a_verdict_with_the_nearest(convkit: Convkit, folder: Path) -> None:
    done = convkit("choose", str(folder), "--size", "<=10B", "--json")
    assert done.code == 1
    assert "--size '<=10B' is out of reach; the nearest is --size '<=" in done.err
    nearest = done.err.rpartition("--size ")[2].strip().strip("'")
    assert json.loads(done.out)["missed"]
    assert convkit("choose", str(folder), "--size", nearest).code == 0
    assert convkit("choose", str(folder), "--front", "--size", "<=10B").code == 1


BAD = {
    "no budget": ((), "give a budget"),
    "an empty plan": (("--size", "<=1x", "--plan", ""), "'--plan': it is empty"),
    "a wrong unit": (("--latency", "3MB"), "--latency '3MB'"),
    "no plan": (("--size", "<=1x", "--plan", "none.yaml"), "cannot read plan none.yaml"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_one_line(convkit: Convkit, folder: Path, case: str) -> None:
    words, message = BAD[case]
    done = convkit("choose", str(folder), *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_pins_and_plans_of_something_else_are_one_line(convkit: Convkit, folder: Path) -> None:
    def refused(plan: Plan) -> str:
        (folder / "plan.yaml").write_text(plans.dump(plan))
        done = convkit("choose", str(folder), "--size", "<=1x", "--plan", str(folder / "plan.yaml"))
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        return done.err

    assert "there is no layer 'layr3' to pin; did you mean 'layer3'?" in refused(
        Plan(MODEL, "t", pins={"layr3": "float"})
    )
    told = refused(Plan(MODEL, "t", pins={"layer3": "int9"}))
    assert "layer 'layer3' is pinned to int9, which it cannot run in; it can run in float, " in told
    assert "plan.yaml is for model cdcdcdcdcdcd, the tables are for abababababab" in refused(Plan("cd" * 32, "t"))


def test_tables_that_are_none(convkit: Convkit, tmp_path: Path) -> None:
    done = convkit("choose", str(tmp_path / "none.json"), "--size", "<=1x")
    assert done.code == 2
    assert "cannot read tables" in done.err
    assert "'TABLES': it is empty" in convkit("choose", "", "--size", "<=1x").err
    (tmp_path / "some.json").write_text("{}")
    assert "holds no tables" in convkit("choose", str(tmp_path / "some.json"), "--size", "<=1x").err


def test_neither_torch_nor_an_engine_is_imported(folder: Path) -> None:
    script = (
        "import sys\nfrom convkit.cli.main import CLI\n"
        f"CLI.main(['choose', {str(folder)!r}, '--size', '<=0.3x'], standalone_mode=False)\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
