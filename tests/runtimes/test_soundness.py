"""The gate is sound: decisions are counted over many whole benches under recorded noise.

The nominal 95 % intervals are of the bootstrap; the claims here are about what a user meets: how often an identical
pair fails a 3 % gate, and how often a true 5 % slow-down gets through.
"""

from collections import Counter

from convkit.runtimes.bench.gate import parse
from convkit.runtimes.bench.verdict import State, judge
from tests.runtimes import simulation

GATE = parse("p50 <= 1.03x")
TRIALS = 100
CALL = 0.010
LONGEST = 30.0
"""Seconds the command may take for a 10 ms model, loading included; loading gets a third."""


def decisions(ratio: float, trace: str, trials: int) -> Counter[State]:
    counted: Counter[State] = Counter()
    for trial in range(trials):
        measurement, taken = simulation.run({"baseline": CALL, "candidate": CALL * ratio}, trace, trial)
        assert taken < LONGEST * 2 / 3 + 1
        (judgement,) = judge(measurement, [GATE]).judgements
        counted[judgement.state] += 1
    return counted


def test_an_identical_pair_fails_in_under_one_of_a_hundred() -> None:
    counted = decisions(1.0, "calm", TRIALS)
    assert counted["fail"] < TRIALS / 100
    assert counted["pass"] > 0.95 * TRIALS


def test_a_true_slow_down_of_five_percent_is_caught_in_over_ninety_five_of_a_hundred() -> None:
    counted = decisions(1.05, "calm", TRIALS)
    assert counted["fail"] > 0.95 * TRIALS
    assert counted["pass"] == 0


def test_where_others_take_the_cores_it_is_undecided_and_not_wrong() -> None:
    same, slower = decisions(1.0, "contended", 40), decisions(1.05, "contended", 40)
    assert same["fail"] == 0
    assert slower["pass"] == 0
    assert slower["fail"] > 0


def test_at_the_limit_itself_few_runs_decide() -> None:
    counted = decisions(1.03, "calm", 40)
    assert counted["undecided"] > 0.75 * 40
