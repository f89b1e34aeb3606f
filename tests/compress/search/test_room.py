"""Finalists that keep off a limit: which they are, and that what is promised there is measured."""

import dataclasses
import itertools

from convkit.compress.option import FLOAT
from convkit.compress.search.refine import GIVEN, Trial, Wish, refine, with_room
from tests.compress.search import instance
from tests.compress.search.test_refine import ROUNDS, SMALL, Device, limit_at


def test_the_second_finalist_leaves_room_to_the_limit() -> None:
    problem = instance.network(12, 14)
    whole = problem.cost(dict.fromkeys(problem.options, FLOAT))
    limit = 0.5 * whole.seconds
    wish = Wish({"seconds": limit})
    refined = refine(problem, Device.of(problem, 3).measure, wish, ROUNDS)
    roomy = with_room(refined, wish, 0.97)
    tables = refined.problem
    kept = [t for t in refined.trials if tables.cost(t.formats).seconds <= 0.97 * limit]
    assert kept
    assert roomy.measured.loss == min(trial.measured.loss for trial in kept)
    assert with_room(refined, wish, 1e-6) is refined.best


def test_what_keeps_off_the_limit_is_measured_too() -> None:
    """Once each, behind the rounds, and what it teaches is in the tables."""
    problem = instance.network(12, 14)
    limit = 0.6 * problem.cost(dict.fromkeys(problem.options, FLOAT)).seconds
    plain = refine(problem, Device.of(problem, 3).measure, Wish({"seconds": limit}), ROUNDS)
    rooms = (0.97, 0.8)
    wish = Wish({"seconds": limit}, rooms=rooms)
    refined = refine(problem, Device.of(problem, 3).measure, wish, ROUNDS)
    spare = refined.trials[len(plain.trials) :]
    assert refined.trials[: len(plain.trials)] == plain.trials
    assert 1 <= len(spare) <= len(rooms)
    assert all(trial.turn == plain.trials[-1].turn for trial in spare)
    assert min(trial.predicted.seconds for trial in spare) <= 0.98 * 0.8 * limit
    assert all(trial.measured.seconds > 0.85 * limit for trial in plain.trials)
    assert refined.agreed == plain.agreed


def test_a_lucky_measurement_is_no_room() -> None:
    """It was measured well within the limit, the tables that everything corrected have it beyond."""
    device = Device.of(SMALL, seed=3, own=0.0, pair=0.0)
    plans = device.every()
    limit = limit_at(device, plans, 0.5)
    refined = refine(SMALL, device.measure, Wish({"seconds": limit}), ROUNDS)
    over = next(
        dict(zip(SMALL.options, plan, strict=True))
        for plan in itertools.product(*SMALL.options.values())
        if refined.problem.cost(dict(zip(SMALL.options, plan, strict=True))).seconds > limit
    )
    cost = refined.problem.cost(over)
    lucky = Trial(over, cost, dataclasses.replace(cost, loss=0.0, seconds=0.9 * limit))
    trials = (*refined.trials, lucky)
    assert with_room(dataclasses.replace(refined, trials=trials), Wish({"seconds": limit}), 0.97) != lucky


def test_a_disturbed_measurement_leaves_room() -> None:
    """It was measured beyond the limit, the tables that everything corrected have it well within."""
    device = Device.of(SMALL, seed=3, own=0.0, pair=0.0)
    limit = limit_at(device, device.every(), 0.5)
    refined = refine(SMALL, device.measure, Wish({"seconds": limit}), ROUNDS)
    under = next(
        formats
        for plan in itertools.product(*SMALL.options.values())
        if refined.problem.cost(formats := dict(zip(SMALL.options, plan, strict=True))).seconds < 0.9 * limit
    )
    cost = refined.problem.cost(under)
    disturbed = Trial(under, cost, dataclasses.replace(cost, loss=-1.0, seconds=1.1 * limit))
    trials = (*refined.trials, disturbed)
    assert with_room(dataclasses.replace(refined, trials=trials), Wish({"seconds": limit}), 0.97) == disturbed


def test_what_an_earlier_search_measured_may_have_room() -> None:
    """The network in float has none to offer: it is there anyway."""
    problem = instance.network(12, 14)
    whole = problem.cost(dict.fromkeys(problem.options, FLOAT))
    device = Device.of(problem, 3)
    earlier = refine(problem, device.measure, Wish({"seconds": 0.5 * whole.seconds}), ROUNDS)
    known = [dataclasses.replace(trial, turn=GIVEN) for trial in earlier.trials]
    formats = dict.fromkeys(problem.options, FLOAT)
    known.append(Trial(formats, whole, dataclasses.replace(whole, loss=0.0)))
    wish = Wish({"seconds": 1.001 * whole.seconds})
    refined = dataclasses.replace(earlier, trials=tuple(known))
    roomy = with_room(refined, wish, 0.97)
    assert roomy in known[:-1]
    assert roomy.measured.loss == min(trial.measured.loss for trial in known[:-1])
