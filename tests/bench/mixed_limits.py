"""What mixed precision must reach beside its peers, line by line."""

import math
from collections.abc import Iterable, Iterator, Sequence

from convkit.compress.metric import LIMIT_DB
from convkit.runtimes.bench.estimate import Interval, point
from tests.bench import comparison, peer
from tests.bench.comparison import FLOAT
from tests.bench.limits import Line
from tests.bench.mixed import SURELY, WISHES, Mixed

HARDEST = "upconv7"
"""The network on which every INT8 tool loses most."""
AHEAD, BETTER = 0.90, {"psnr": 1.0, "agreement": 1.0, "top1": 1.0}
"""Time over a peer's at equal accuracy, or what is gained in dB or points at equal time."""
AGREEMENT, ZERO_SHOT = 98.5, 98.0
LOST_DB, IN_TIME = 0.3, 0.20
IN_ITS_TIME = 1 / SURELY
"""Time over a peer's in which two networks of one speed are measured."""
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
    apart = sum(not one.agreed for one in found.own.values())
    yield Line(where, "searches whose prediction and measurement do not meet", point(apart), "<=", 0, "")
    if found.case.name == HARDEST and found.rivals:
        yield from _ahead(found, where)
    if found.case.name == "lite0":
        yield from _beside_fastest(found, where)
        yield from _search(found, where)
    if (found.case.name, found.engine) in WISHES:
        yield from _restored(found, where)


def _matched(found: Mixed, where: str, rival: str) -> Line:
    """The fastest result that is as accurate as the peer's, which must be no slower.

    A peer that gives the float network back is matched by that: the same network is no slower than itself.
    """
    same = found.measurement[rival].metrics.get("sqnr", 0.0) >= LIMIT_DB
    ratio = point(1.0) if same else _at_no_less(found, rival, found.searched)
    return Line(where, f"p50 over {rival}'s, at no less accuracy", ratio, "<=", 1.0, "x")


def _at_no_less(found: Mixed, rival: str, made: Iterable[str]) -> Interval:
    ratios = [found.over[name, rival] for name in _as_accurate(found, rival, made)]
    return min(ratios, key=lambda one: one.value, default=point(_NEVER))


def _as_accurate(found: Mixed, rival: str, made: Iterable[str]) -> Iterator[str]:
    """Those of `made` no worse than the peer's in every metric, or than float's where the peer beats that by chance.

    The original is one: convkit gives it back where nothing else is as good. Top-1 is of few photos: less of it counts
    only where more than chance makes it so. Classes kept count to the last one, those of zero-shot images too.
    """
    for name in (*made, FLOAT):
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
    """Beside its fastest peer: faster at equal accuracy, or more accurate in no more time; one of the two is enough.

    What is narrower or was trained counts too.
    """
    rival = str(found.fastest)
    ratio = _at_no_less(found, rival, found.own)
    metric = found.case.accuracy[0]
    in_time = [name for name in found.own if found.over[name, rival].value <= 1]
    gains = [found.score(name, metric) - found.score(rival, metric) for name in in_time]
    gain, unit = max(gains, default=0.0), "dB" if metric == "psnr" else "points"
    better = Line(where, f"{metric} over {rival}'s in no more time", point(gain), ">=", BETTER[metric], unit)
    sooner = Line(where, f"p50 over {rival}'s, at no less accuracy", ratio, "<=", AHEAD, "x")
    yield better if better.met or not sooner.met else sooner


def _beside_fastest(found: Mixed, where: str) -> Iterator[Line]:
    """The best agreement that is to be had in the time of the fastest peer, searched alone and trained then.

    All layers in INT8 take what that peer's do: one may be measured before or behind the other.
    """
    rival = found.fastest
    if rival is None:
        return
    for made, how, lacking in _ways(found, "trained"):
        in_time = [name for name in made if found.over[name, rival].value <= IN_ITS_TIME]
        best = max((found.score(name, "agreement") for name in in_time), default=0.0)
        yield Line(where, f"agreement in {rival}'s time{how}", point(best), ">=", AGREEMENT, "%", lacking)
        if found.zero_shot:
            kept = max((found.zero_shot[name] for name in in_time), default=0.0)
            what = f"zero-shot agreement in {rival}'s time{how}"
            yield Line(where, what, point(kept), ">=", ZERO_SHOT, "%", lacking)


def _ways(found: Mixed, further: str) -> Iterator[tuple[Iterable[str], str, str]]:
    """What formats alone reach, and what this CPU lacks for that; then what was also made `further`, with no excuse."""
    yield found.searched, "", _lacking(found.engine)
    if found.further:
        yield found.further, f", {further}", ""


def _restored(found: Mixed, where: str) -> Iterator[Line]:
    """The least time at which no more is lost of the images than may be, by formats alone and with narrower layers."""
    least = found.score(FLOAT, "psnr") - LOST_DB
    for made, how, lacking in _ways(found, "narrower"):
        ratios = [found.measurement[name].ratios["p50"] for name in made if found.score(name, "psnr") >= least]
        best = min(ratios, key=lambda one: one.value, default=point(_NEVER))
        what = f"p50 over float's with at most {LOST_DB} dB lost{how}"
        yield Line(where, what, best, "<=", IN_TIME, "x", lacking)


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
