"""What mixed precision must reach beside its peers, line by line."""

import math
from collections.abc import Iterator, Sequence

from convkit.runtimes.bench.estimate import point
from tests.bench import comparison, peer
from tests.bench.comparison import FLOAT
from tests.bench.limits import Line
from tests.bench.mixed import Mixed

HARDEST = "upconv7"
"""The network on which every INT8 tool loses most."""
AHEAD, BETTER = 0.90, {"psnr": 1.0, "agreement": 1.0, "top1": 1.0}
"""Time over a peer's at equal accuracy, or what is gained in dB or points at equal time."""
AGREEMENT, ZERO_SHOT = 98.5, 98.0
LOST_DB, IN_TIME = 0.3, 0.20
SEARCH_SECONDS, FEWER = 300.0, 10.0
_LABELLED = "top1"
_ERRORS = 1.96
"""Standard deviations within which 95 % of what is chance lies."""
_NEVER = 9.99
"""Stands for a ratio that no network has."""


def of_mixed(found: Mixed) -> Iterator[Line]:
    """Every limit that this network and engine can show."""
    where = f"{found.case.name}, {found.engine}"
    for rival in found.rivals:
        yield _matched(found, where, rival)
    apart = sum(not one.agreed for one in found.searched.values())
    yield Line(where, "searches whose prediction and measurement do not meet", point(apart), "<=", 0, "")
    if found.case.name == HARDEST and found.rivals:
        yield from _ahead(found, where)
    if found.case.name == "lite0":
        yield from _beside_fastest(found, where)
        yield from _search(found, where)
    if found.case.name == "upconv7":
        yield from _restored(found, where)


def _matched(found: Mixed, where: str, rival: str) -> Line:
    """The fastest result that is as accurate as the peer's, which must be no slower."""
    best = min(
        (found.over[name, rival] for name in _as_accurate(found, rival)), key=lambda one: one.value, default=None
    )
    what = f"p50 over {rival}'s, at no less accuracy"
    return Line(where, what, point(_NEVER) if best is None else best, "<=", 1.0, "x")


def _as_accurate(found: Mixed, rival: str) -> Iterator[str]:
    """Results no worse than the peer's in every metric; where the peer beats float, which is chance, than float's.

    The original is one: convkit gives it back where nothing else is as good. Top-1 is of few photos: less of it counts
    only where more than chance makes it so. Classes kept count to the last one, those of zero-shot images too.
    """
    for name in (*found.searched, FLOAT):
        limits = {m: min(found.score(rival, m), found.score(FLOAT, m)) for m in found.case.accuracy}
        worse = [metric for metric, limit in limits.items() if found.score(name, metric) < limit]
        kept = found.zero_shot.get(name, 0.0) >= found.zero_shot.get(rival, 0.0)
        if kept and all(metric == _LABELLED and _by_chance(found, name) for metric in worse):
            yield name


def _by_chance(found: Mixed, name: str) -> bool:
    """Whether so many of the classes that changed may have been right before though as many become right as wrong.

    Of n changes the difference of both has a standard deviation of sqrt(n) (McNemar, Psychometrika 1947).
    """
    photos = len(found.case.evaluation)
    changed = (1 - found.score(name, "agreement") / 100) * photos
    lost = (found.score(FLOAT, _LABELLED) - found.score(name, _LABELLED)) / 100 * photos
    return lost <= _ERRORS * math.sqrt(changed)


def _ahead(found: Mixed, where: str) -> Iterator[Line]:
    """Beside its fastest peer: faster at equal accuracy, or more accurate in no more time; one of the two is enough."""
    rival = str(found.fastest)
    faster = min(
        (found.over[name, rival] for name in _as_accurate(found, rival)), key=lambda one: one.value, default=None
    )
    metric = found.case.accuracy[0]
    in_time = [name for name in found.searched if found.over[name, rival].value <= 1]
    gains = [found.score(name, metric) - found.score(rival, metric) for name in in_time]
    gain, unit = max(gains, default=0.0), "dB" if metric == "psnr" else "points"
    better = Line(where, f"{metric} over {rival}'s in no more time", point(gain), ">=", BETTER[metric], unit)
    ratio = point(_NEVER) if faster is None else faster
    sooner = Line(where, f"p50 over {rival}'s, at no less accuracy", ratio, "<=", AHEAD, "x")
    yield better if better.met or not sooner.met else sooner


def _beside_fastest(found: Mixed, where: str) -> Iterator[Line]:
    """The best agreement that is to be had in the time of the fastest peer."""
    rival = found.fastest
    if rival is None:
        return
    in_time = [name for name in found.searched if found.over[name, rival].value <= 1]
    best = max(in_time, key=lambda name: found.score(name, "agreement"), default=None)
    agreement = 0.0 if best is None else found.score(best, "agreement")
    lacking = _lacking(found.engine)
    yield Line(where, f"agreement in {rival}'s time", point(agreement), ">=", AGREEMENT, "%", lacking)
    if found.zero_shot:
        kept = max((found.zero_shot[name] for name in in_time), default=0.0)
        yield Line(where, f"zero-shot agreement in {rival}'s time", point(kept), ">=", ZERO_SHOT, "%", lacking)


def _restored(found: Mixed, where: str) -> Iterator[Line]:
    """The least time at which no more is lost of the images than may be."""
    least = found.score(FLOAT, "psnr") - LOST_DB
    good = [name for name in found.searched if found.score(name, "psnr") >= least]
    ratios = [found.measurement[name].ratios["p50"] for name in good]
    best = min(ratios, key=lambda one: one.value, default=point(_NEVER))
    what = f"p50 over float's with at most {LOST_DB} dB lost"
    yield Line(where, what, best, "<=", IN_TIME, "x", _lacking(found.engine))


def _search(found: Mixed, where: str) -> Iterator[Line]:
    """Time of the search with its latency table, and what peers that search evaluate over what convkit does to find a
    result that is no slower and keeps to the budget which they were given."""
    free = found.searched["convkit"]
    yield Line(where, "search, latency table included", point(free.command.seconds), "<=", SEARCH_SECONDS, "s")
    for rival, cost in found.costs.items():
        if "evaluations" not in cost:
            continue
        least = found.score(FLOAT, cost["metric"]) - 100 * cost["max_drop"]
        matching = [name for name in found.searched if found.score(name, cost["metric"]) >= least]
        counts = [found.searched[name].evaluations for name in matching if found.over[name, rival].value <= 1]
        untold = "report.json has no count of evaluations" if None in counts else ""
        fewer = max((cost["evaluations"] / count for count in counts if count), default=0.0)
        yield Line(where, f"{rival}'s full evaluations over convkit's", point(fewer), ">=", FEWER, "x", untold)


def _lacking(engine: str) -> str:
    """What this CPU lacks of what the figures stand on."""
    lacks: Sequence[str] = [] if peer.has_vnni() else ["VNNI"]
    if engine == "openvino" and not comparison.has_bf16():
        lacks = [*lacks, "bf16"]
    return f"no {' and no '.join(lacks)} on this CPU" if lacks else ""
