"""What is asked of a search, held against the network before anything runs."""

from dataclasses import replace

import pytest

from convkit.cli import wishing
from convkit.cli.quantizing import Job
from convkit.compress import apply
from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import Plan
from convkit.compress.search import remedies
from tests.cli import quantizable

NOTHING = dict.fromkeys(("latency", "size", "bops"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return quantizable.job(quantizable.write(tmp_path_factory.mktemp("wishing")))


def with_plan(work: Job, *methods: str, pin: str) -> Job:
    return replace(work, plan=Plan(work.model.digest, work.target.name, methods, pins={pin: "float"}))


def test_a_layer_that_a_method_of_the_plan_makes_may_be_pinned(work: Job) -> None:
    methods = (*remedies.EXACT, "align_channels", "learned_round")
    made = apply.prepare(work.model, methods).graph
    assert "x_aligned" in {graphs.key(node) for node in graphs.computes(made)}
    asked = with_plan(work, *methods, pin="x_aligned")
    assert wishing.wishes(asked, "int8", None, NOTHING, by_labels=False) is not None


def test_a_layer_that_no_method_makes_may_not(work: Job) -> None:
    for methods in (remedies.EXACT, (*remedies.EXACT, "align_channels")):
        with pytest.raises(ConvkitError, match="there is no layer 'y_aligned' to pin"):
            wishing.wishes(with_plan(work, *methods, pin="y_aligned"), "int8", None, NOTHING, by_labels=False)
    with pytest.raises(ConvkitError, match="there is no layer 'x_aligned' to pin"):
        wishing.wishes(with_plan(work, *remedies.EXACT, pin="x_aligned"), "int8", None, NOTHING, by_labels=False)
