"""The original and what is made of it get the same tuning; a plan's own knobs and the user's are not chosen."""

from dataclasses import replace
from pathlib import Path

import pytest

from convkit.cli import quantizing, tuning
from convkit.cli.contest import ORIGINAL
from convkit.cli.tuning import Tuning
from convkit.compress import model as models
from convkit.compress import plan as plans
from convkit.compress.model import ModelRef, parse_shape
from convkit.compress.plan import Plan
from convkit.runtimes.bench import measure as measuring
from convkit.runtimes.bench import tuning as tuner
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import point
from convkit.runtimes.bench.measure import Measurement
from convkit.runtimes.session import Options, open_session
from tests.cli import quantizable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuner.Job]:
    """What the tuner is asked; it always turns off spinning, and gives integers one thread."""
    jobs: list[tuner.Job] = []

    def tune(job: tuner.Job, **_: object) -> tuner.Tuned:
        jobs.append(job)
        threads = 2 if Path(job.path).name == quantizing.ORIGINAL_FILE else 1
        turned = replace(
            job.options, spinning=False, threads=job.options.threads if "threads" in job.fixed else threads
        )
        return tuner.Tuned(turned, point(0.5), {})

    monkeypatch.setattr(tuner, "tune", tune)
    return jobs


def test_both_are_tuned_alike_and_the_contest_runs_each_with_its_own(
    folder: Path, asked: list[tuner.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[Candidate]] = []
    measure = measuring.measure

    def noted(candidates: list[Candidate], *others: object, **more: object) -> Measurement:
        runs.append(candidates)
        return measure(candidates, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "measure", noted)
    outcome = quantizing.quantize(quantizable.job(folder, budget=1.0), lambda _line: None)
    assert [(j.options, j.fixed, j.budget, j.engine) for j in asked] == [
        (Options(), (), tuning.SHARE, "onnxruntime")
    ] * 2
    for run in runs:
        for candidate in run:
            threads = 2 if candidate.name == ORIGINAL else 1
            assert candidate.options == Options(spinning=False, threads=threads)
    assert outcome.knobs == {"spinning": False}
    kept = {"spinning": False} if outcome.kept == ORIGINAL else {"threads": 1, "spinning": False}
    assert outcome.plan.engine == kept


def test_without_tuning_all_stay_at_their_defaults(folder: Path, asked: list[tuner.Job]) -> None:
    outcome = quantizing.quantize(quantizable.job(folder, budget=1.0, tune=False), lambda _line: None)
    assert (asked, outcome.knobs, outcome.plan.engine) == ([], {}, {})


def test_knobs_of_the_plan_given_and_of_the_user_stay(folder: Path, asked: list[tuner.Job]) -> None:
    work = quantizable.job(folder, budget=1.0, threads=2, fixed=("threads",))
    plan = Plan(work.model.digest, work.target.name, engine={"optimization": "extended"})
    found = tuning.tuning(replace(work, plan=plan), folder / "net.onnx", folder / "net.onnx", work.data, lambda _: None)
    assert found == Tuning({"spinning": False}, {"spinning": False, "optimization": "extended"})
    assert [job.fixed for job in asked] == [("threads",), ("threads", "optimization")]
    assert asked[1].options == Options(optimization="extended")


def test_the_pace_is_measured_only_where_knobs_differ(folder: Path) -> None:
    work = quantizable.job(folder, budget=1.0)
    same = Tuning({"spinning": False}, {"spinning": False})
    assert tuning.paced(work, same, folder / "net.onnx", work.data) is same
    other = tuning.paced(work, Tuning({}, {"spinning": False}), folder / "net.onnx", work.data)
    assert other.pace > 0
    assert other.pace != 1


def test_a_batch_that_is_fixed_is_tuned_and_paced_with(
    folder: Path, asked: list[tuner.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file of the network leaves it free.
    work, file, runs = quantizable.job(folder, budget=1.0), folder / "net.onnx", list[Measurement]()
    work = replace(work, model=models.load(ModelRef(str(file), shapes=dict([parse_shape("x:8x3x8x8")]))))
    measure = measuring.measure

    def noted(*words: object) -> Measurement:
        runs.append(measure(*words))  # type: ignore[arg-type]
        return runs[-1]

    monkeypatch.setattr(measuring, "measure", noted)
    found = tuning.tuning(work, file, file, work.data, lambda _: None)
    tuning.paced(work, replace(found, original={}), file, work.data)
    assert [job.batch for job in asked] == [8, 8]
    assert [run.batch for run in runs] == [8]


def test_the_tuner_measures_with_the_batch_it_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    measure = measuring.measure

    def noted(*words: object, **more: object) -> Measurement:
        found = measure(*words, **more)  # type: ignore[arg-type]
        sizes.append(found.batch)
        return found

    monkeypatch.setattr(tuner, "measure", noted)
    work = quantizable.job(folder)
    tuner.tune(
        tuner.Job("onnxruntime", str(folder / "net.onnx"), Options(threads=1), work.data, ("threads",), 0.2, 0, 8)
    )
    assert sizes
    assert set(sizes) == {8}


def test_what_is_written_names_the_knobs_and_the_bench_takes_them(
    folder: Path, asked: list[tuner.Job], convkit: quantizable.Convkit, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("-m", str(folder / "net.onnx"), "--data", str(folder / "calib.npz"), "--threads", "1", "--budget", "1")
    found = convkit("quantize", *words, "-o", str(out))
    assert found.code == 0, found.err
    assert plans.read(out / "plan.yaml").engine == {"spinning": False}
    assert '"engine": {\n    "spinning": false\n  }' in (out / "manifest.json").read_text()
    assert "runs with spinning=off" in found.out
    assert {job.fixed for job in asked} == {("threads",)}
    again = convkit(
        *("export", "-m", str(folder / "net.onnx"), "--target", "onnxruntime-cpu", "--plan", str(out / "plan.yaml")),
        *("--data", str(folder / "calib.npz"), "-o", str(tmp_path / "again")),
    )
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "plan.yaml").read_bytes() == (out / "plan.yaml").read_bytes()
    model, plan = str(out / "model.onnx"), str(out / "plan.yaml")
    timed = convkit("bench", f"onnxruntime,plan={plan}:{model}", "--budget", "0.2", "--json")
    assert timed.code == 0, timed.err
    checked = convkit("verify", model, "--plan", plan, "--data", str(folder / "calib.npz"), "--tolerance", "sqnr=-50")
    assert "onnxruntime" in checked.out
    assert "eager" not in checked.out
    open_session("onnxruntime", model, Options(spinning=False)).close()
