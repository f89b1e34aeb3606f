"""Evolution finds the best members within a limit, or says that there is none."""

import itertools

from convkit.compress.search import members
from convkit.compress.search.members import Evolution
from convkit.compress.training.elastic import Choice, Space

SPACE = Space(dict.fromkeys("abcd", (32, 24, 16, 8)), (), {"k": (7, 5, 3)})
WORTH = dict(zip("abcd", (1.0, 3.0, 0.5, 2.0), strict=True))


def seconds(choice: Choice) -> float:
    return sum(choice.widths.get(name, 32) for name in "abcd") + choice.kernels.get("k", 7)


def score(choice: Choice) -> float:
    return sum(WORTH[name] * choice.widths.get(name, 32) for name in "abcd") + choice.kernels.get("k", 7) / 10


def every() -> list[Choice]:
    sizes = itertools.product((32, 24, 16, 8), repeat=4)
    return [
        Choice({n: s for n, s in zip("abcd", four, strict=True) if s != 32}, (), {"k": k} if k != 7 else {})
        for four in sizes
        for k in (7, 5, 3)
    ]


def test_it_finds_nearly_the_best_of_all() -> None:
    limit = 80.0
    best = max(score(one) for one in every() if seconds(one) <= limit)
    found = members.evolve(SPACE, seconds, score, limit, Evolution(16, 5, 8))
    assert found[0].seconds <= limit
    assert found[0].score >= 0.93 * best
    assert len(found) < len(every()) / 4
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_none_fits() -> None:
    assert members.evolve(SPACE, seconds, score, 30.0) == []


def test_the_same_seed_finds_the_same() -> None:
    first, again = (members.evolve(SPACE, seconds, score, 90.0, Evolution(seed=3)) for _ in range(2))
    assert first == again
