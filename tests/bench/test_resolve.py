"""The tables that the bench solves from are such as a search leaves."""

from pathlib import Path

from convkit.compress.search import budget, tables
from tests.bench import resolve


def test_its_tables_are_read_and_solved_from(tmp_path: Path) -> None:
    file = tmp_path / "tables.json"
    problem = resolve.made_up(file, 4, 3)
    found = tables.read(file).problem
    assert found.options == problem.options
    assert all(budget.solve(found, {"seconds": limit}) for limit in resolve._limits(problem))
