"""Saved tables: a Problem with what it was made from and what was measured of it, so that a new budget needs neither
the network nor its device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convkit.compress import plan as plans
from convkit.compress import record, schema
from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.compress.search import criterion as criteria
from convkit.compress.search.correction import Sight, corrected_by
from convkit.compress.search.criterion import DISTANCE, Criterion
from convkit.compress.search.problem import QUANTITIES, Cost, Edge, Problem
from convkit.compress.search.refine import Trial

FILE, OTHERS = "tables.json", "tables-*.json"
"""What a search leaves: tables of what it kept to, and those of other precisions of float and of other widths."""
SCHEMA_VERSION = 3
_HINT = "a search leaves them: `convkit quantize … --formats int8 -o FOLDER`"
_TOP: schema.Types = {
    "model": str,
    "target": str,
    "estimated": bool,
    "digests": dict,
    "plan": str,
    "original": dict,
    "floating": str,
    "criterion": str,
    "layers": dict,
    "edges": list,
    "groups": list,
    "fixed": dict,
    "trials": list,
}
_EDGE: schema.Types = {"producer": str, "given": str, "consumers": list, "seconds": object, "directed": list}
_TRIAL: schema.Types = {"formats": dict, "predicted": dict, "measured": dict, "noise": object}
_COST: schema.Types = dict.fromkeys(QUANTITIES, (int, float))
_MOST = {"loss": 1e30, "seconds": 1e6, "bytes": 1e18, "bops": 1e24}
"""Magnitudes that no network has; sums and squares of what is less stay finite."""
_NOTHING = 1e-100
"""A magnitude that is none: nothing can be scaled by what is as small."""


@dataclass(frozen=True, slots=True)
class Tables:
    """`problem`, the digest of its model, and the digests of whatever else it was made from, by name.

    `trials` are choices that were measured truly, `estimated` says that no seconds of `problem` were measured; `plan`
    is the text of the Plan, all of it in the format of `target`, whose layers are put into the formats of a choice.
    Those in float are in `floating`; `original` is what the network costs that was given. `criterion`: what a loss is.
    """

    model: str
    problem: Problem
    digests: Mapping[str, str]
    trials: tuple[Trial, ...] = ()
    target: str = ""
    estimated: bool = False
    plan: str = ""
    original: Cost = field(default_factory=Cost)
    floating: str = "fp32"
    criterion: Criterion = DISTANCE

    def corrected(self) -> Problem:
        """`problem` as the trials correct it."""
        return corrected_by(self.problem, [Sight(one.formats, one.measured, one.noise) for one in self.trials])


def write(path: str | Path, tables: Tables) -> None:
    """`tables` as JSON, written atomically; a change that is forbidden takes null seconds."""
    problem = tables.problem
    layers = {
        layer: {str(option): asdict(cost) for option, cost in options.items()}
        for layer, options in problem.options.items()
    }
    record.write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "model": tables.model,
            "target": tables.target,
            "estimated": tables.estimated,
            "digests": dict(sorted(tables.digests.items())),
            "plan": tables.plan,
            "original": asdict(tables.original),
            "floating": tables.floating,
            "criterion": tables.criterion.name,
            "layers": layers,
            "edges": [_edge_json(edge) for edge in problem.edges],
            "groups": problem.groups,
            "fixed": asdict(problem.fixed),
            "trials": [_trial_json(trial) for trial in tables.trials],
        },
    )


def file(path: str | Path) -> Path:
    """The JSON file that is meant: `path`, or that in the folder of a search."""
    return Path(path) / FILE if Path(path).is_dir() else Path(path)


def read(path: str | Path, model: str | None = None) -> Tables:
    """The tables in a JSON file, or in the folder of a search.

    Raises ConvkitError where it holds none, none to be computed with, or those of another model than `model`.
    """
    path = file(path)
    try:
        found = _checked(_parse(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ConvkitError(f"cannot read tables {path}: {error.strerror}", hint=_HINT) from error
    except (ValueError, RecursionError, ConvkitError) as error:
        raise ConvkitError(f"{path} holds no tables: {' '.join(str(error).split())}", hint=_HINT) from error
    if model is not None and found.model != model:
        raise ConvkitError(f"{path} holds the tables of another model", hint=_HINT)
    return found


def beside(path: str | Path, found: Tables) -> tuple[Tables, ...]:
    """What the same search left of other precisions that layers in float may all run in; `found` are those in `path`, a
    file or the folder of the search. Raises ConvkitError as `read` does.
    """
    own = file(path)
    if own.name != FILE:
        return ()
    others = [read(other) for other in sorted(own.parent.glob(OTHERS))]
    return tuple(other for other in others if _is_beside(other, found))


def _is_beside(other: Tables, found: Tables) -> bool:
    """Whether both differ in the precision alone."""
    same = (other.model, other.target, other.criterion) == (found.model, found.target, found.criterion)
    if not same or other.floating == found.floating or not (other.plan and found.plan):
        return False
    ours, theirs = plans.loads(found.plan), plans.loads(other.plan)
    return (dict(ours.widths), ours.methods) == (dict(theirs.widths), theirs.methods)


def _parse(text: object) -> Tables:
    if not isinstance(text, dict) or text.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is not {SCHEMA_VERSION}")
    found = schema.fields("it", text, _TOP, tuple(_TOP))
    options = {layer: _options(layer, given) for layer, given in found["layers"].items()}
    groups = tuple(tuple(map(str, _listed("a group", group))) for group in found["groups"])
    problem = Problem(options, tuple(map(_edge, found["edges"])), groups, _cost("what is fixed", found["fixed"]))
    trials = tuple(_trial(problem, given) for given in found["trials"])
    facts = {name: found[name] for name in ("model", "digests", "target", "estimated", "plan", "floating")}
    facts |= {"original": _cost("the original", found["original"]), "criterion": _criterion(found["criterion"])}
    return Tables(problem=problem, trials=trials, **facts)


def _checked(tables: Tables) -> Tables:
    """`tables`, which choices can be made from; raises ValueError or ConvkitError where none can."""
    import numpy as np

    if not tables.problem.options:
        raise ValueError("it has no layers, so there is nothing to choose")
    if tables.plan and plans.loads(tables.plan).model != tables.model:
        raise ValueError("its plan is for another model")
    for where, cost in [("the original", tables.original), *(("a trial", trial.measured) for trial in tables.trials)]:
        if cost.seconds <= 0:
            raise ValueError(f"{where} takes no time")
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            tables.corrected()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise ValueError("what was measured of its trials does not go with what its layers cost") from error
    return tables


def _criterion(name: str) -> Criterion:
    if name not in criteria.ALL:
        raise ValueError(f"its criterion is {name!r}; there is: {', '.join(criteria.ALL)}")
    return criteria.ALL[name]


def _options(layer: str, given: object) -> dict[Option, Cost]:
    if not isinstance(given, dict) or not given:
        raise ValueError(f"layer {layer!r} has no options")
    return {Option.parse(name): _cost(f"{name} of {layer!r}", cost) for name, cost in given.items()}


def _cost(where: str, given: object) -> Cost:
    found = schema.fields(where, given, _COST, QUANTITIES)
    return Cost(**{name: _number(f"{name!r} of {where}", name, value) for name, value in found.items()})


def _number(where: str, quantity: str, given: object) -> float:
    """A number that `quantity` may be: only a loss may be less than nothing, where a network gains by it."""
    found = schema.number(where, given)
    if abs(found) > _MOST[quantity]:
        raise ValueError(f"{where} is {given!r}, more than any network has")
    if found < 0 and quantity != "loss":
        raise ValueError(f"{where} is {given!r}, less than nothing")
    return found if abs(found) > _NOTHING else 0.0


def _trial_json(trial: Trial) -> dict[str, Any]:
    formats = {layer: str(option) for layer, option in trial.formats.items()}
    costs = {"predicted": asdict(trial.predicted), "measured": asdict(trial.measured)}
    return {"formats": formats, **costs, "noise": trial.noise}


def _trial(problem: Problem, given: object) -> Trial:
    found = schema.fields("a trial", given, _TRIAL, tuple(_TRIAL))
    formats = {layer: Option.parse(str(text)) for layer, text in found["formats"].items()}
    if list(formats) != list(problem.options):
        raise ValueError("a trial has other layers")
    for layer, option in formats.items():
        if option not in problem.options[layer]:
            raise ValueError(f"a trial has {layer!r} in {option}, which it cannot run in")
    predicted, measured = (_cost(f"a trial's {name} cost", found[name]) for name in ("predicted", "measured"))
    return Trial(formats, predicted, measured, _number("a trial's noise", "seconds", found["noise"]))


def _edge_json(edge: Edge) -> dict[str, Any]:
    changes = [[before, after, _finite(seconds)] for (before, after), seconds in edge.directed.items()]
    return {
        "producer": edge.producer,
        "given": edge.given,
        "consumers": edge.consumers,
        "seconds": _finite(edge.seconds),
        "directed": changes,
    }


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _edge(given: object) -> Edge:
    found = schema.fields("an edge", given, _EDGE, tuple(_EDGE))
    directed = {}
    for change in found["directed"]:
        before, after, seconds = _listed("a change of format", change, 3)
        directed[str(before), str(after)] = _seconds(seconds)
    consumers = tuple(map(str, _listed("who reads an edge", found["consumers"])))
    return Edge(found["producer"], consumers, _seconds(found["seconds"]), directed, found["given"])


def _seconds(given: object) -> float:
    """Of a change of format, which may spare some; None forbids it."""
    if given is None:
        return math.inf
    found = schema.number("the time of a change of format", given)
    if abs(found) > _MOST["seconds"]:
        raise ValueError(f"the time of a change of format is {given!r}, more than any network has")
    return found if abs(found) > _NOTHING else 0.0


def _listed(where: str, given: object, length: int | None = None) -> list[Any]:
    if not isinstance(given, list) or not given or (length is not None and len(given) != length):
        raise ValueError(f"{where} is {given!r}")
    return given
