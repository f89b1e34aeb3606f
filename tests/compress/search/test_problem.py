"""What a problem refuses, pins and corrects."""

import math

import pytest

from convkit.compress.errors import ConvkitError
from convkit.compress.option import FLOAT, Option
from convkit.compress.search.problem import Cost, Edge, Problem, corrected, pinned

INT8 = Option("int8", "uint8")
BF16 = Option("bf16", "bf16")
OPTIONS = {FLOAT: Cost(0.0, 4.0, 400.0, 40.0), INT8: Cost(1.0, 1.0, 100.0, 10.0)}
PROBLEM = Problem(
    {"stem": OPTIONS, "head": OPTIONS},
    (Edge("stem", ("head",), 0.5, {("fp32", "uint8"): 0.25}),),
    fixed=Cost(0.0, 2.0, 8.0),
)


@pytest.mark.parametrize(
    ("stem", "head", "seconds"), [(FLOAT, FLOAT, 10.0), (FLOAT, INT8, 7.25), (INT8, FLOAT, 7.5), (INT8, INT8, 4.0)]
)
def test_a_plan_costs_its_layers_its_changes_and_the_rest(stem: Option, head: Option, seconds: float) -> None:
    choice = PROBLEM.choice({"head": head, "stem": stem})
    assert choice.cost.seconds == seconds
    assert choice.cost.bytes == OPTIONS[stem].bytes + OPTIONS[head].bytes + 8
    assert list(choice.formats) == ["stem", "head"]


@pytest.mark.parametrize(
    ("formats", "message", "hint"),
    [
        ({"steem": INT8}, "no layer 'steem' to pin", "did you mean 'stem'?"),
        ({"stem": BF16}, "layer 'stem' is pinned to bf16, which it cannot run in", "it can run in fp32, int8/uint8"),
    ],
)
def test_a_pin_that_cannot_be_is_the_users_error(formats: dict[str, Option], message: str, hint: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        pinned(PROBLEM, formats)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_pins_that_tear_a_group_apart_are_the_users_error() -> None:
    grouped = Problem(PROBLEM.options, groups=(("stem", "head"),))
    with pytest.raises(ConvkitError, match=r"none in common: 'stem' \(fp32\), 'head' \(int8/uint8\)"):
        pinned(grouped, {"stem": FLOAT, "head": INT8})


def test_a_problem_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer is called 'tail'"):
        Problem(PROBLEM.options, (Edge("stem", ("tail",)),))
    with pytest.raises(ValueError, match="two groups"):
        Problem({**PROBLEM.options, "mid": OPTIONS}, groups=(("stem", "mid"), ("mid", "head")))
    with pytest.raises(ValueError, match="a cost of 'stem' is not finite"):
        Problem({"stem": {FLOAT: Cost(math.nan)}})
    with pytest.raises(ValueError, match="no time that is known"):
        Edge("stem", ("head",), math.nan)
    with pytest.raises(ValueError, match="no time that is known"):
        Edge("stem", ("head",), 0.0, {("fp32", "fp32"): math.inf})
    with pytest.raises(ValueError, match="leads from a producer, or a given format, to consumers"):
        Edge("stem", ())
    with pytest.raises(ValueError, match="leads from a producer, or a given format, to consumers"):
        Edge("", ("head",))


def test_a_change_is_paid_once_for_all_who_want_it() -> None:
    layers = dict.fromkeys(("stem", "left", "right"), OPTIONS)
    problem = Problem(layers, (Edge("stem", ("left", "right"), 0.5), Edge("", ("left", "right"), 8.0, given="uint8")))
    plans = {(FLOAT, INT8, INT8): 0.5, (INT8, FLOAT, FLOAT): 0.5 + 8, (FLOAT, FLOAT, INT8): 0.5 + 8, (INT8,) * 3: 0.0}
    for plan, changes in plans.items():
        own = sum(OPTIONS[option].seconds for option in plan)
        assert problem.cost(dict(zip(layers, plan, strict=True))).seconds == own + changes


def test_single_costs_are_corrected() -> None:
    changed = corrected(PROBLEM, {("head", INT8): Cost(3.0, 2.0)}, fixed=Cost(seconds=1.0))
    assert changed.cost({"stem": INT8, "head": INT8}) == Cost(4.0, 4.0, 100.0, 10.0)
    assert PROBLEM.cost({"stem": INT8, "head": INT8}) == Cost(2.0, 4.0, 208.0, 20.0)
