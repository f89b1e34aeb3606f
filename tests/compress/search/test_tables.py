"""Tables on disk give the answers that they gave in memory."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from convkit.compress import plan as plans
from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.compress.plan import Plan
from convkit.compress.search import budget, tables
from convkit.compress.search.criterion import CROSS_ENTROPY
from convkit.compress.search.problem import Cost, Problem
from convkit.compress.search.tables import Tables
from tests.compress.search import instance
from tests.compress.search.problems import problems_of

EDGE: dict[str, Any] = {"producer": "x", "given": "", "consumers": ["y"], "seconds": 1, "directed": []}
COST: dict[str, Any] = {"loss": 0.1, "seconds": 1.0, "bytes": 4, "bops": 2}
TRIAL: dict[str, Any] = {"formats": {"stem": "int8"}, "predicted": COST, "measured": COST, "noise": 0.0}
ORIGINAL = Cost(0.0, 2.0, 8.0, 4.0)
SMALL = Tables("a1b2", Problem({"stem": {Option("int8", "int8"): Cost(**COST)}}), {}, original=ORIGINAL)


@given(problems_of())
@settings(max_examples=30)
def test_tables_read_back(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> None:
    file = tmp_path_factory.mktemp("tables") / "tables.json"
    written = Tables("a1b2", problem, {"latency": "c3", "data": "d4"}, original=ORIGINAL, criterion=CROSS_ENTROPY)
    tables.write(file, written)
    assert tables.read(file, "a1b2") == written
    first = file.read_bytes()
    tables.write(file, tables.read(file))
    assert file.read_bytes() == first
    json.loads(first, parse_constant=pytest.fail)


def test_a_new_budget_is_solved_from_disk(tmp_path: Path) -> None:
    problem = instance.network(20, 25)
    tables.write(tmp_path / "tables.json", Tables("a1b2", problem, {}, original=ORIGINAL))
    assert (tmp_path / "tables.json").stat().st_size < 64 << 10
    read = tables.read(tmp_path / "tables.json").problem
    for limit in (2e5, 4e5):
        assert budget.solve(read, {"bytes": limit}) == budget.solve(problem, {"bytes": limit})


def test_other_precisions_stand_beside(tmp_path: Path) -> None:
    """Not those of narrower networks, of other models and of the same precision."""
    plan = Plan("a1b2", "onnxruntime-cpu")
    known = replace(SMALL, plan=plans.dump(plan), floating="bf16")
    other = replace(known, floating="fp32")
    narrow = plans.dump(replace(plan, widths={"stem": 8}))
    for name, one in {
        "tables": known,
        "tables-fp32": other,
        "tables-bf16-narrow": replace(known, plan=narrow),
        "tables-fp32-narrow": replace(other, plan=narrow),
        "tables-fp16": replace(other, model="c3d4", plan="", floating="fp16"),
    }.items():
        tables.write(tmp_path / f"{name}.json", one)
    for path in (tmp_path, tmp_path / "tables.json"):
        assert tables.beside(path, tables.read(path)) == (other,)
    assert tables.beside(tmp_path / "tables-fp32.json", other) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "its schema_version is not 3"),
        ({"criterion": "taste"}, "its criterion is 'taste'; there is: distance, cross-entropy, squared error"),
        ({"layers": {"stem": {}}}, "layer 'stem' has no options"),
        ({"layers": {"stem": {"int8": {"loss": 1.0}}}}, "int8 of 'stem' lacks 'seconds'"),
        ({"fixed": {"loss": "much", "seconds": 0, "bytes": 0, "bops": 0}}, "'loss' of what is fixed is 'much'"),
        ({"edges": [EDGE]}, "no layer is called 'x'"),
        ({"edges": [EDGE | {"directed": [[1]]}]}, "a change of format is [1]"),
        ({"edges": [EDGE | {"consumers": []}]}, "who reads an edge is []"),
        ({"edges": [EDGE | {"given": "fp32"}]}, "an edge leads from a producer, or a given format"),
        ({"groups": [[]]}, "a group is []"),
        ({"more": 1}, "it has 'more'"),
        ({"layers": {}}, "it has no layers"),
        ({"plan": "nonsense"}, "the plan is no plan: it holds no keys and values"),
        ({"plan": "a: ["}, "the plan is no plan: while parsing"),
        ({"plan": plans.dump(Plan("c3d4", "t"))}, "its plan is for another model"),
        ({"original": COST | {"seconds": 0}}, "the original takes no time"),
        ({"original": COST | {"bytes": -1}}, "'bytes' of the original is -1, less than nothing"),
        ({"fixed": COST | {"loss": 1e308}}, "'loss' of what is fixed is 1e+308, more than any network has"),
        ({"fixed": COST | {"bops": 10**400}}, "not a finite number"),
        ({"layers": {"stem": {"int8": COST | {"seconds": math.inf}}}}, "is inf, not a finite number"),
        ({"edges": [EDGE | {"seconds": 1e308}]}, "the time of a change of format is 1e+308, more than"),
        ({"trials": [TRIAL | {"measured": COST | {"seconds": 0}}]}, "a trial takes no time"),
        ({"trials": [TRIAL | {"measured": COST | {"seconds": 1e-320}}]}, "a trial takes no time"),
        ({"trials": [TRIAL | {"noise": -1}]}, "a trial's noise is -1, less than nothing"),
        ({"trials": [TRIAL | {"measured": COST | {"seconds": 1e-90}}] * 2}, "does not go with what its layers cost"),
    ],
)
def test_a_file_that_holds_no_tables_is_the_users_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "tables.json"
    tables.write(file, SMALL)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConvkitError) as raised:
        tables.read(file)
    assert raised.value.message.startswith(f"{file} holds no tables: ")
    assert message in raised.value.message


def test_what_is_no_file_or_another_models_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="cannot read tables"):
        tables.read(tmp_path / "none.json")
    (tmp_path / "text").write_text("[")
    with pytest.raises(ConvkitError, match="holds no tables"):
        tables.read(tmp_path / "text")
    tables.write(tmp_path / "tables.json", SMALL)
    with pytest.raises(ConvkitError, match="tables of another model"):
        tables.read(tmp_path / "tables.json", "c3d4")


def test_the_folder_of_a_search_holds_its_tables(tmp_path: Path) -> None:
    tables.write(tmp_path / "tables.json", SMALL)
    assert tables.read(tmp_path) == SMALL
    (tmp_path / "tables.json").unlink()
    with pytest.raises(ConvkitError, match=r"cannot read tables .*/tables\.json"):
        tables.read(tmp_path)
