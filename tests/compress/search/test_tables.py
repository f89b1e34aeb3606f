"""Tables on disk give the answers that they gave in memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from convkit.compress.errors import ConvkitError
from convkit.compress.search import budget, tables
from convkit.compress.search.criterion import CROSS_ENTROPY
from convkit.compress.search.problem import Problem
from convkit.compress.search.tables import Tables
from tests.compress.search import instance
from tests.compress.search.problems import problems_of

EDGE: dict[str, Any] = {"producer": "x", "given": "", "consumers": ["y"], "seconds": 1, "directed": []}


@given(problems_of())
@settings(max_examples=30)
def test_tables_read_back(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> None:
    file = tmp_path_factory.mktemp("tables") / "tables.json"
    written = Tables("a1b2", problem, {"latency": "c3", "data": "d4"}, criterion=CROSS_ENTROPY)
    tables.write(file, written)
    assert tables.read(file, "a1b2") == written
    first = file.read_bytes()
    tables.write(file, tables.read(file))
    assert file.read_bytes() == first
    json.loads(first, parse_constant=pytest.fail)


def test_a_new_budget_is_solved_from_disk(tmp_path: Path) -> None:
    problem = instance.network(20, 25)
    tables.write(tmp_path / "tables.json", Tables("a1b2", problem, {}))
    assert (tmp_path / "tables.json").stat().st_size < 64 << 10
    read = tables.read(tmp_path / "tables.json").problem
    for limit in (2e5, 4e5):
        assert budget.solve(read, {"bytes": limit}) == budget.solve(problem, {"bytes": limit})


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
    ],
)
def test_a_file_that_holds_no_tables_is_the_users_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "tables.json"
    tables.write(file, Tables("a1b2", Problem({}), {}))
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
    tables.write(tmp_path / "tables.json", Tables("a1b2", Problem({}), {}))
    with pytest.raises(ConvkitError, match="tables of another model"):
        tables.read(tmp_path / "tables.json", "c3d4")
