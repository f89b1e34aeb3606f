"""A new budget from saved tables, as a person waits for it: a process of its own reads them and solves."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convkit.compress.option import FLOAT
from convkit.compress.search import budget, tables
from convkit.compress.search.problem import Problem
from tests.compress.search import instance

LAYERS, EDGES, POINTS = 80, 90, 25
_PARTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where the budgets lie between the fastest network and that of least loss."""
_HEAD = """
import json, sys
from convkit.compress.search import budget, tables
problem = tables.read(sys.argv[1]).problem
"""
_SOLVE = _HEAD + 'print(json.dumps([budget.solve(problem, {"seconds": float(sys.argv[2])}).cost.loss]))'
_FRONT = _HEAD + "print(json.dumps([choice.cost.loss for choice in budget.front(problem, points=int(sys.argv[2]))]))"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Wall seconds of whole processes, one for each budget and one for the front, and how many points this has."""

    budgets: tuple[float, ...]
    front: float
    points: int


def resolve(say: Callable[[str], None]) -> Resolved:
    """On tables of 80 layers, 8 options each and 90 edges, made up from a seed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.json"
        problem = made_up(file, LAYERS, EDGES)
        say("resolve: budgets")
        budgets = tuple(_timed(_SOLVE, file, limit)[0] for limit in _limits(problem))
        say("resolve: the front")
        front, found = _timed(_FRONT, file, POINTS)
    return Resolved(budgets, front, len(found))


def made_up(file: Path, layers: int, edges: int) -> Problem:
    """What stands in the tables that are written."""
    problem = instance.network(layers, edges)
    original = problem.cost(dict.fromkeys(problem.options, FLOAT))
    tables.write(file, tables.Tables("made up", problem, {}, original=original))
    return problem


def _limits(problem: Problem) -> list[float]:
    """Seconds, none of them at an end."""
    ends = [budget.nearest(problem, quantity) for quantity in ("seconds", "loss")]
    low, high = (end.cost.seconds for end in ends if end is not None)
    return [low + part * (high - low) for part in _PARTS]


def _timed(code: str, file: Path, argument: float) -> tuple[float, list[float]]:
    started = time.perf_counter()
    words = [sys.executable, "-c", code, str(file), str(argument)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, json.loads(done.stdout)
