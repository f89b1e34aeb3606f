"""What a search begins with: of a plan that is given all but what is searched, and the spaces that are worth it."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from convkit.cli import searching, searchspace
from convkit.cli.building import Builder
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.precisions import F32, Precision
from convkit.cli.progress import Progress
from convkit.cli.quantizing import Job
from convkit.cli.searchspace import Ground, Means, Space, Wishes
from convkit.cli.tuning import Tuning
from convkit.cli.work import Work
from convkit.compress.budget import parse
from convkit.compress.option import Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search.problem import Cost, Problem
from convkit.compress.search.tables import Tables
from tests.cli import quantizable

BF16 = Precision("bf16", Option("bf16", "bf16"))
WHOLE = Cost(seconds=2.0, bytes=100, bops=10.0)
BUILDER = cast("Builder", None)
"""Nothing is built here."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return quantizable.job(quantizable.write(tmp_path_factory.mktemp("start")), tune=False)


def means(job: Job, wishes: Wishes) -> Means:
    return Means(job, wishes, Progress(), Checkpoint(), Path(), Work())


def known(floating: Option, loss: float) -> Tables:
    problem = Problem({"conv": {floating: Cost(loss, 1.0, 50, 5.0)}})
    return Tables("", problem, {}, original=WHOLE, floating=str(floating))


def worth(job: Job, *losses: float) -> list[str]:
    """Names of the precisions that are searched, of float32 and bf16 with the best losses that tables promise."""
    precisions = [F32, BF16]
    found = [known(one.floating, loss) for one, loss in zip(precisions, losses, strict=True)]
    asked = Wishes((), (parse("latency", "<=0.9x"),), tables=found[0], others=tuple(found[1:]))
    spaces = [
        Space(BUILDER, Plan("", ""), {}, tables.problem, WHOLE, precision)
        for precision, tables in zip(precisions, found, strict=True)
    ]
    return [space.precision.name for space in searching._worth_a_hunt(means(job, asked), spaces)]


@pytest.mark.parametrize(
    ("losses", "searched"),
    [
        ((-0.5, -0.4), ["f32", "bf16"]),
        ((-0.5, -0.2), ["f32"]),
        ((0.1, -0.01), ["bf16"]),
        ((0.0, 0.0), ["f32", "bf16"]),
        ((1.2, 1.0), ["f32", "bf16"]),
        ((1.4, 1.0), ["bf16"]),
    ],
)
def test_the_best_space_is_searched_whatever_the_sign_of_losses(
    work: Job, losses: tuple[float, float], searched: list[str]
) -> None:
    # By labels a network may judge better than the one it was made from.
    assert worth(work, *losses) == searched


def test_of_a_plan_given_the_precision_alone_is_searched(work: Job) -> None:
    engine = {"precision": "bf16", "optimization": "extended"}
    plan = Plan(work.model.digest, work.target.name, engine=engine, pins={"conv3": "float"})
    found = searching._with_pins(replace(work, plan=plan), Wishes(("int8",)))
    assert found.plan == replace(plan, engine={"optimization": "extended"})


@pytest.mark.parametrize("method", ["learned_round", "learned_scale", "block_round"])
def test_what_a_plan_learns_is_not_learnt_for_every_network(work: Job, method: str) -> None:
    layers = {"conv3": LayerPlan("uint8", "int8")}
    plan = Plan(work.model.digest, work.target.name, ("simplify", method), layers)
    begun = searching._start(replace(work, plan=plan), Wishes(("int8",))).plan
    assert begun is not None
    assert begun == replace(plan, methods=("simplify", "bias_correction"))


@pytest.mark.parametrize("engine", [{"optimization": "extended"}, {}])
def test_without_tuning_the_knobs_of_the_plan_stand(work: Job, engine: dict[str, str]) -> None:
    job = replace(work, plan=Plan(work.model.digest, work.target.name, engine=engine))
    ground = Ground(BUILDER, Plan("", ""), {})
    assert searchspace.tuned(means(job, Wishes(("int8",))), ground, Path(), job.data) == Tuning(lowered=engine)
    assert searchspace.tuned(means(work, Wishes(("int8",))), ground, Path(), job.data) == Tuning()
