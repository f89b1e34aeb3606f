"""Choosing with tables that are wrong, by measuring: against the true front of every plan there is."""

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from convkit.compress.option import FLOAT, Option
from convkit.compress.search import budget
from convkit.compress.search.correction import Sight, corrected_by
from convkit.compress.search.problem import Choice, Cost, Edge, Formats, Problem, corrected
from convkit.compress.search.refine import Measured, Trial, Wish, refine
from tests.compress.search import instance
from tests.compress.search.problems import scaled

ROUNDS = 8


@dataclass
class Device:
    """The truth: costs other than the tables have them, and pairs of layers that disturb each other."""

    truth: Problem
    pairs: dict[tuple[str, str], tuple[float, float]]
    count: int = 0
    batches: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Problem, seed: int, own: float = 0.2, pair: float = 0.1) -> "Device":
        draw = random.Random(seed)

        def wrong(cost: Cost) -> Cost:
            seconds = cost.seconds * draw.lognormvariate(0, own / 2)
            return Cost(cost.loss * draw.lognormvariate(0, own), seconds, cost.bytes, cost.bops)

        table = problem.options
        costs = {(layer, option): wrong(cost) for layer, known in table.items() for option, cost in known.items()}
        factors = draw.uniform(0.7, 1.5), draw.uniform(0.8, 1.25)
        truth = scaled(scaled(corrected(problem, costs), "loss", factors[0]), "seconds", factors[1])
        return cls(truth, {ends: (draw.gauss(0, pair), draw.gauss(0, pair / 3)) for ends in itertools.pairwise(table)})

    def cost(self, formats: Formats) -> Cost:
        """The sum of all layers, but neighbours that both run low change it by a part of themselves."""
        own = {layer: self.truth.options[layer][option] for layer, option in formats.items()}
        total = self.truth.cost(formats)
        loss, seconds = total.loss, total.seconds
        for (a, b), (more, longer) in self.pairs.items():
            if formats[a].activation == formats[b].activation != "fp32":
                loss += more * (own[a].loss * own[b].loss) ** 0.5
                seconds += longer * (own[a].seconds * own[b].seconds) ** 0.5
        return Cost(loss, seconds, total.bytes, total.bops)

    def measure(self, choices: Sequence[Choice]) -> list[Measured]:
        self.count += len(choices)
        self.batches.append(len(choices))
        return [Measured(cost.loss, cost.seconds) for cost in (self.cost(choice.formats) for choice in choices)]

    def every(self) -> list[Cost]:
        options = self.truth.options
        return [self.cost(dict(zip(options, plan, strict=True))) for plan in itertools.product(*options.values())]


SMALL = instance.network(6, 8, seed=5, options=4)


def limit_at(device: Device, plans: Sequence[Cost], part: float) -> float:
    low, high = min(plan.seconds for plan in plans), device.cost(dict.fromkeys(SMALL.options, FLOAT)).seconds
    return low + part * (high - low)


@pytest.mark.parametrize("seed", range(4))
def test_the_plan_lies_within_a_percent_of_the_true_front(seed: int) -> None:
    device = Device.of(SMALL, seed)
    plans = device.every()
    assert len(plans) >= 500
    for part in (0.1, 0.3, 0.6):
        found = refine(SMALL, device.measure, Wish({"seconds": limit_at(device, plans, part)}), ROUNDS)
        best = found.best.measured
        assert found.allowed
        assert len(found.trials) <= 12
        assert not any(p.loss * 1.01 < best.loss and p.seconds * 1.01 < best.seconds for p in plans)
    assert device.count < 30


def test_true_tables_are_believed_at_once() -> None:
    device = Device(SMALL, {})
    limit = limit_at(device, device.every(), 0.4)
    found = refine(SMALL, device.measure, Wish({"seconds": limit}, around=(1.0,)), ROUNDS)
    choice = budget.solve(SMALL, {"seconds": limit})
    assert choice is not None
    assert found.agreed
    assert [trial.formats for trial in found.trials] == [choice.formats]


def test_prediction_and_measurement_meet() -> None:
    device = Device.of(SMALL, seed=1)
    found = refine(SMALL, device.measure, Wish({"seconds": limit_at(device, device.every(), 0.4)}), ROUNDS)
    assert found.agreed
    for trial in found.trials:
        again = found.problem.cost(trial.formats)
        assert again.loss == pytest.approx(trial.measured.loss, rel=0.02)
        assert again.seconds == pytest.approx(trial.measured.seconds, rel=0.02)


def test_loss_is_a_limit_too() -> None:
    device = Device.of(SMALL, seed=2)
    plans = device.every()
    limit = sorted(plan.loss for plan in plans)[len(plans) // 3]
    found = refine(SMALL, device.measure, Wish({"loss": limit}, "seconds"), ROUNDS)
    assert found.allowed
    assert found.best.measured.seconds <= 1.01 * min(plan.seconds for plan in plans if plan.loss <= limit)


def gaining(problem: Problem) -> Problem:
    """Every third layer gains by low precision, as losses by labels may."""
    names = list(problem.options)[::3]
    costs = {
        (name, option): dataclasses.replace(cost, loss=-cost.loss)
        for name in names
        for option, cost in problem.options[name].items()
    }
    return corrected(problem, costs)


@pytest.mark.parametrize("seed", range(3))
def test_gains_are_learned_as_losses_are(seed: int) -> None:
    problem = gaining(SMALL)
    device = dataclasses.replace(Device.of(problem, seed), pairs={})
    plans = device.every()
    most = max(abs(plan.loss) for plan in plans)
    wish = Wish({"seconds": limit_at(device, plans, 0.3)}, same={"loss": 0.01 * most})
    found = refine(problem, device.measure, wish, ROUNDS)
    best = min(plan.loss for plan in plans if plan.seconds <= wish.limits["seconds"])
    assert found.allowed
    assert found.agreed
    assert found.best.measured.loss <= best + 0.1 * most


def test_where_nothing_may_be_lost_what_loses_least_is_nearest() -> None:
    wish = Wish({"loss": 0.0}, "seconds")
    costs = [Cost(loss, seconds) for loss, seconds in ((0.2, 1.0), (0.1, 2.0), (-0.1, 5.0), (0.0, 4.0))]
    assert sorted(costs, key=wish.rank) == [costs[3], costs[2], costs[1], costs[0]]


def test_what_makes_no_difference_agrees_however_small_a_loss_is() -> None:
    wish = Wish({}, same={"loss": 1e-3})
    assert wish.agrees("loss", 5e-4, -4e-4)
    assert not wish.agrees("loss", 5e-3, -4e-4)
    assert not Wish({}).agrees("loss", 5e-4, -4e-4)


def test_what_noise_hides_agrees() -> None:
    """Within two standard errors, but no further than a tenth, and of seconds alone."""
    wish = Wish({"seconds": 1.0})
    assert wish.agrees("seconds", 1.05, 1.0, 0.03)
    assert not wish.agrees("seconds", 1.05, 1.0, 0.02)
    assert not wish.agrees("seconds", 1.15, 1.0, 0.2)
    assert not wish.agrees("loss", 1.15, 1.0, 0.2)


def test_what_is_promised_is_better_by_more_than_they_agree_to() -> None:
    wish = Wish({"seconds": 1.0})
    within, beyond = Cost(1.0, 1.0), Cost(1.0, 1.2)
    assert wish.promises(Cost(0.8, 1.0), within)
    assert not wish.promises(Cost(0.95, 1.0), within)
    assert not wish.promises(Cost(0.8, 1.1), within)
    assert dataclasses.replace(wish, worth=0.19).promises(Cost(0.8, 1.0), within)
    assert not dataclasses.replace(wish, worth=0.21).promises(Cost(0.8, 1.0), within)
    assert wish.promises(Cost(2.0, 1.0), beyond)
    assert wish.promises(Cost(1.0, 1.1), beyond)
    assert not wish.promises(Cost(0.1, 1.19), beyond)


@pytest.mark.parametrize(("seed", "rounds"), [(0, 2), (1, 1)])
def test_rounds_go_on_until_prediction_and_measurement_agree(seed: int, rounds: int) -> None:
    device = Device.of(SMALL, seed, own=0.4, pair=0.3)
    found = refine(SMALL, device.measure, Wish({"seconds": limit_at(device, device.every(), 0.4)}), rounds=1)
    assert len(device.batches) == rounds
    assert found.agreed


def test_a_measurement_that_nothing_explains_is_no_agreement() -> None:
    """Of one choice, which was once found to take a tenth of what it takes."""
    cost = SMALL.cost(lowest())
    lucky = Trial(lowest(), cost, dataclasses.replace(cost, seconds=cost.seconds / 10))
    found = refine(SMALL, Device(SMALL, {}).measure, Wish({}, "seconds"), 2, known=[Trial(lowest(), cost, cost), lucky])
    assert found.best == lucky
    assert not found.agreed


def test_beyond_a_limit_only_what_is_limited_must_agree() -> None:
    cost = SMALL.cost(lowest())
    lucky = Trial(lowest(), cost, dataclasses.replace(cost, loss=cost.loss / 2))
    known = [Trial(lowest(), cost, cost), lucky]
    found = refine(SMALL, Device(SMALL, {}).measure, Wish({"seconds": 0.5 * cost.seconds}), 2, known)
    assert found.best == lucky
    assert not found.allowed
    assert found.agreed


def lowest() -> Formats:
    return {layer: list(options)[-1] for layer, options in SMALL.options.items()}


def test_a_wish_out_of_reach_ends_with_the_nearest() -> None:
    device = Device.of(SMALL, seed=3)
    fastest = min(plan.seconds for plan in device.every())
    found = refine(SMALL, device.measure, Wish({"seconds": 0.5 * fastest}), ROUNDS)
    assert not found.allowed
    assert found.best.measured.seconds <= 1.01 * fastest


def test_what_was_measured_before_is_not_measured_again() -> None:
    device = Device.of(SMALL, seed=0)
    wish = Wish({"seconds": limit_at(device, device.every(), 0.3)})
    whole = refine(SMALL, device.measure, wish, ROUNDS)
    device.count = 0
    resumed = refine(SMALL, device.measure, wish, ROUNDS, known=whole.trials[: device.batches[0]])
    assert resumed.best == whole.best
    assert resumed.trials == whole.trials
    assert device.count == len(whole.trials) - device.batches[0]
    assert refine(SMALL, device.measure, wish, ROUNDS, known=whole.trials) == whole


def test_one_round_is_enough_for_an_answer() -> None:
    device = Device.of(SMALL, seed=0)
    found = refine(SMALL, device.measure, Wish({"seconds": 1.0}), rounds=1)
    assert found.allowed
    assert device.batches == [len(found.trials)]


def test_without_a_plan_there_is_nothing_to_refine() -> None:
    forbidden = Edge("a", ("b",), math.inf)
    problem = Problem({"a": {FLOAT: Cost()}, "b": {Option("int8", "uint8"): Cost()}}, (forbidden,))
    with pytest.raises(ValueError, match="no plan is possible"):
        refine(problem, Device(problem, {}).measure, Wish({"seconds": 1.0}), ROUNDS)


def test_a_common_factor_is_told() -> None:
    twice = Device(scaled(SMALL, "seconds", 2.0), {})
    wish = Wish({"seconds": limit_at(twice, twice.every(), 0.4)})
    assert refine(SMALL, twice.measure, wish, ROUNDS).factor == pytest.approx(2.0)
    assert refine(SMALL, Device(SMALL, {}).measure, wish, ROUNDS).factor is None


@pytest.mark.parametrize("seed", range(3))
def test_changes_of_format_that_the_table_has_too_cheap_are_learned(seed: int) -> None:
    """Each takes three times what the table says, give or take: the first choices are far off, the last is not."""
    draw = random.Random(seed)
    dear = [
        dataclasses.replace(
            edge, directed={key: s * 3 * draw.lognormvariate(0, 0.5) for key, s in edge.directed.items()}
        )
        for edge in SMALL.edges
    ]
    device = Device(dataclasses.replace(SMALL, edges=tuple(dear)), {})
    plans = device.every()
    limit = limit_at(device, plans, 0.4)
    found = refine(SMALL, device.measure, Wish({"seconds": limit}), ROUNDS)
    best = min(plan.loss for plan in plans if plan.seconds <= limit)
    assert found.agreed
    assert found.best.measured.loss <= 1.01 * best
    assert found.problem.cost(found.best.formats).seconds == pytest.approx(found.best.measured.seconds, rel=0.03)
    assert len(found.trials) < 24


def test_no_cost_is_corrected_below_nothing() -> None:
    """However little a measurement says."""
    plan = dict.fromkeys(SMALL.options, FLOAT)
    low = lowest()
    half = SMALL.cost(low)
    seen = [Sight(plan, SMALL.cost(plan)), Sight(low, dataclasses.replace(half, seconds=half.seconds / 50, loss=0.0))]
    for draw in (None, 0, 1):
        found = corrected_by(SMALL, seen, draw)
        assert all(cost.seconds >= 0 and cost.loss >= 0 for known in found.options.values() for cost in known.values())
        assert all(seconds >= 0 for edge in found.edges for seconds in edge.directed.values())


def test_files_that_are_larger_than_counted_are_told_and_another_plan_is_looked_for() -> None:
    device, beside = Device(SMALL, {}), 700.0
    plans = itertools.product(*SMALL.options.values())
    every = [SMALL.cost(dict(zip(SMALL.options, plan, strict=True))) for plan in plans]
    limit = sorted(cost.bytes for cost in every)[len(every) // 2]

    def measure(choices: Sequence[Choice]) -> list[Measured]:
        found = device.measure(choices)
        sizes = [SMALL.cost(choice.formats).bytes + beside for choice in choices]
        return [dataclasses.replace(one, bytes=size) for one, size in zip(found, sizes, strict=True)]

    refined = refine(SMALL, measure, Wish({"bytes": limit}), ROUNDS)
    assert refined.allowed
    assert refined.best.measured.bytes == SMALL.cost(refined.best.formats).bytes + beside <= limit
    assert refined.problem.cost(refined.best.formats).bytes == pytest.approx(refined.best.measured.bytes)
    within = [cost.loss for cost in every if cost.bytes + beside <= limit]
    assert refined.best.measured.loss == pytest.approx(min(within))
