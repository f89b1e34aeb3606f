"""The search over float precisions: both are looked at, and whichever network is fastest and as good is kept, were it
the one given with nothing but the engine's setting. What it is told of times is made up; accuracy is simulated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from convkit.cli import contest, quantizing, search_report, searching, sensing, timing, tuning
from convkit.cli.contest import ORIGINAL, Candidate, Contest
from convkit.cli.precisions import F32, Precision
from convkit.cli.progress import Progress
from convkit.cli.searching import Hunt, Searched
from convkit.cli.searchspace import Means, Wishes
from convkit.compress import plan as plans
from convkit.compress import target as targets
from convkit.compress.budget import parse
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import Plan
from convkit.compress.search import tables as saved
from convkit.compress.search.problem import Cost, Problem
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Measurement, Result, Settings
from convkit.runtimes.latency import measure as tables
from convkit.runtimes.latency import roofline
from convkit.runtimes.latency.table import LatencyTable
from tests.cli import quantizable

BF16 = Precision("bf16", Option("bf16", "bf16"))
BOTH = (F32, BF16)
INT8 = Option("int8", "uint8")
Ratio = Callable[[Plan], float]
"""Time of a plan's network over the original's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("precisions"))


def searched(monkeypatch: pytest.MonkeyPatch, folder: Path, wishes: Wishes, ratio: Ratio) -> tuple[Searched, list[str]]:
    """A search where networks take `ratio` of the original's time; also the precision of every table it asked for."""
    asked: list[str] = []

    def estimated(means: Means, builder: object, plan: Plan, variants: Sequence[Plan]) -> list[LatencyTable]:
        job = means.job
        options = tuning.options(job, plan.engine)
        asked.append(options.precision)
        model = builder.model  # type: ignore[attr-defined]
        fingerprint = tables.fingerprint(model, job.target, plan.methods, options)
        found = roofline.estimate(model, job.target, plan.methods, tables.floating(options))
        return [replace(found, fingerprint=fingerprint)] * (1 + len(variants))

    def measured(where: Contest, candidates: Sequence[Candidate], _budget: float, _say: object) -> Measurement:
        results = [_result(ORIGINAL, 1.0, 200.0, where.original)]
        results += [
            _result(c.name, ratio(c.plan), where.simulated if c.simulated is None else c.simulated(), c.path)
            for c in candidates
        ]
        return Measurement(ORIGINAL, tuple(results), 6, 1, None, Settings(), {}, ())

    monkeypatch.setattr(timing, "tables", estimated)
    monkeypatch.setattr(contest, "measured", measured)
    work = quantizable.job(folder, tune=False)
    work = replace(work, target=targets.load("openvino-cpu"))
    return searching.search(work, wishes, Progress()), asked


def _result(name: str, ratio: float, sqnr: float, path: Path) -> Result:
    ratios = {key: Interval(ratio, ratio - 0.01, ratio + 0.01) for key in ("p10", "p50")}
    metrics = {"agreement": 100.0, "sqnr": sqnr}
    seconds = {"p50": point(ratio * 1e-3)}
    return Result(name, "openvino", str(path), None, seconds, ratios, 1, 1, 1, 0, 0, path.stat().st_size, metrics)


def times(float_bf16: float, low: float, low_bf16: float) -> Ratio:
    def ratio(plan: Plan) -> float:
        if not plan.engine:
            return low
        return low_bf16 if plan.layers else float_bf16

    return ratio


def test_nothing_but_the_setting_is_a_network_of_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    found, asked = searched(monkeypatch, folder, Wishes((), (), BOTH), times(0.5, 0.4, 0.4))
    outcome = found.outcome
    assert asked == ["f32", "bf16"]
    assert (outcome.kept, outcome.verdict) == ("all in bf16", "kept the file, set to bf16")
    assert (outcome.plan.layers, outcome.plan.engine) == ({}, {"precision": "bf16"})
    assert outcome.model == (folder / "net.onnx").read_bytes()
    assert {result.name for result in outcome.standing.results} == {ORIGINAL, "all in bf16"}
    assert set(search_report.report(found)["layers"].values()) == {"bf16"}


def test_layers_in_eight_bits_between_others_in_bf16(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    found, asked = searched(monkeypatch, folder, Wishes(("int8",), (), BOTH), times(0.6, 0.5, 0.4))
    assert asked == ["f32", "bf16"]
    plan = found.outcome.plan
    assert plan.engine == {"precision": "bf16"}
    assert "int8" in {layer.weight for layer in plan.layers.values()}
    assert found.outcome.kept.endswith("float in bf16")
    assert found.space.precision == BF16
    assert found.space.original.seconds == pytest.approx(found.space.original["seconds"])


def test_what_a_layer_alone_loses_is_measured_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def strongest(problem: Problem, _floating: Option) -> dict[str, tuple[Option, ...]]:
        pairs = {name: tuple(o for o in options if o.weight == "int8") for name, options in problem.options.items()}
        return {name: options for name, options in pairs.items() if options}

    monkeypatch.setattr(sensing, "_strongest", strongest)
    found, asked = searched(monkeypatch, folder, Wishes(("int8",), (), BOTH), times(0.6, 0.5, 0.4))
    assert asked == ["f32", "bf16"]
    assert found.work.counts["pairs"] == len(strongest(found.space.problem, FLOAT)) > 0
    losses = [{n: o[INT8].loss for n, o in _options(hunt).items() if INT8 in o} for hunt in (found.hunt, *found.others)]
    assert losses[0] == pytest.approx(losses[1])


def _options(hunt: Hunt) -> Mapping[str, Mapping[Option, Cost]]:
    return hunt.lab.space.problem.options


def test_float32_stays_where_bf16_gains_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    found, _ = searched(monkeypatch, folder, Wishes(("int8",), (), BOTH), times(1.2, 0.5, 0.6))
    assert (found.outcome.plan.engine, found.space.precision) == ({}, F32)
    assert found.outcome.plan.layers


def test_the_original_is_kept_where_no_precision_pays(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    found, _ = searched(monkeypatch, folder, Wishes((), (), BOTH), times(1.1, 1.1, 1.1))
    assert (found.outcome.kept, found.outcome.plan.engine, found.outcome.plan.layers) == (ORIGINAL, {}, {})
    assert set(search_report.report(found)["layers"].values()) == {"fp32"}


def test_a_budget_is_held_against_both(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    budgets = (parse("latency", "<=0.55x"),)
    found, _ = searched(monkeypatch, folder, Wishes(("int8",), budgets, BOTH), times(0.5, 0.7, 0.45))
    assert found.missed == ()
    assert found.outcome.kept == "all in bf16"  # the most accurate of those within it
    tight = (parse("bops", "<=0.1x"),)
    found, _ = searched(monkeypatch, folder, Wishes(("int8",), tight, BOTH), times(0.5, 0.7, 0.45))
    assert found.outcome.plan.layers


def test_a_new_budget_is_solved_from_the_tables_of_both(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    """Float32 between a few layers in INT8 is nearer to the network than bf16 alone, where there is room for it."""
    found, _ = searched(monkeypatch, folder, Wishes(("int8",), (), BOTH), times(0.6, 0.5, 0.4))
    assert found.space.precision == BF16
    search_report.write(found, tmp_path)
    known = saved.read(tmp_path)
    others = saved.beside(tmp_path, known)
    assert [one.floating for one in (known, *others)] == ["bf16", "fp32"]
    for budget, precision in ((parse("bops", "<=0.9x"), F32), (parse("latency", "<=0.9x"), BF16)):
        wishes = Wishes((), (budget,), tables=known, others=others)
        again, asked = searched(monkeypatch, folder, wishes, times(0.6, 0.5, 0.4))
        assert asked == []
        assert {hunt.lab.space.precision for hunt in (again.hunt, *again.others)} == {precision}
        assert again.outcome.plan.engine == precision.knobs


def test_the_plan_says_all_that_it_takes(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    found, _ = searched(monkeypatch, folder, Wishes((), (), BOTH), times(0.5, 0.4, 0.4))
    (tmp_path / "plan.yaml").write_text(plans.dump(found.outcome.plan))
    plan = plans.read(tmp_path / "plan.yaml")
    assert plan == found.outcome.plan
    work = replace(quantizable.job(folder, tune=False, plan=plan), target=targets.load("openvino-cpu"))
    again = quantizing.quantize(work, lambda _line: None)
    assert (again.kept, again.plan) == ("as planned", plan)
    assert again.model == found.outcome.model
