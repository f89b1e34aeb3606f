"""What convkit must reach, line by line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from convkit.cli.contest import ORIGINAL
from convkit.runtimes.bench.estimate import Interval, point
from tests.bench.comparison import CONVKIT, FLOAT, Comparison
from tests.bench.enumerated import Enumerated
from tests.bench.latency import Predictions
from tests.bench.matrix import Cell, Numbers
from tests.bench.product import FailedError, Quantized, median
from tests.bench.resolve import EDGES, LAYERS, Resolved
from tests.bench.rounding import AVERAGED, FIVE, FOUR, OF_BOTH, TRAINED, Rounding
from tests.bench.sensitivity import Correlation
from tests.bench.zero_shot import ZeroShot, name_of

OVER_RIVAL = {"onnxruntime": 0.95, "openvino": 1.0}
"""Time of convkit's result over that of the engine's own quantizer, at most."""
AT_LEAST = {"lite0": {"top1": 83.0, "agreement": 97.0}}
"""Metrics on the labelled photos."""
LOST_ZERO_SHOT = 0.5
QUANTIZE_SECONDS, QUANTIZE_BYTES, HELP_SECONDS = 60.0, 2 << 30, 0.2
RESOLVE_SECONDS, FRONT_SECONDS = 2.0, 20.0
RANKED, SENSITIVITY_SECONDS = 0.9, 25.0
"""Spearman over all pairs of layer and option; seconds for four options a layer."""
FORETOLD, FROM_FRONT = 0.1, 0.01
"""Relative error of a predicted latency; how much better than the search's result a plan may be in both at once."""


LOST_IN_FOUR_BITS, LOST_ON_PHOTOS, LOST_IN_FIVE = 1.5, 2.0, 0.5
"""Points of zero-shot accuracy and of top-1 on the photos, with learned rounding; of both at five bits on average."""
BUILD_SECONDS, AS_SIMULATED = 15.0, 50.0
FLOATS_WIN, FLOATS_LOSE = 5.0, 2.0
"""dB of e3m4 over int8 on a heavy-tailed tensor, and of int8 over e3m4 on a Gaussian one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One limit. It is met by the estimate itself; `sure` when the whole 95 % interval is on the same side.

    `unshown`: why it says nothing here that it is not met.
    """

    where: str
    what: str
    measured: Interval
    sense: Literal["<=", ">="]
    limit: float
    unit: str
    unshown: str = ""

    @property
    def met(self) -> bool:
        return self._holds(self.measured.value)

    @property
    def missed(self) -> bool:
        return not self.met and not self.unshown

    @property
    def verdict(self) -> str:
        if not self.met and self.unshown:
            return f"not shown here: {self.unshown}"
        return ("pass" if self.met else "miss") + ("" if self.sure else ", not sure")

    @property
    def sure(self) -> bool:
        return self._holds(self.measured.low) == self._holds(self.measured.high)

    def _holds(self, value: float) -> bool:
        return value <= self.limit if self.sense == "<=" else value >= self.limit


def of_comparison(comparison: Comparison) -> Iterator[Line]:
    """Faster than the engine's own quantizer, as accurate, and never slower than float."""
    where, rival = f"{comparison.case.name}, {comparison.engine}", comparison.rival
    if rival in comparison.over_peer:
        limit = OVER_RIVAL[comparison.engine]
        yield Line(where, f"p50 over {rival}'s", comparison.over_peer[rival], "<=", limit, "x")
        yield from _as_accurate(comparison, where, rival)
    for metric, limit in AT_LEAST.get(comparison.case.name, {}).items():
        yield Line(where, metric, point(comparison.score(CONVKIT, metric)), ">=", limit, "%")
    if comparison.product.kept != ORIGINAL:
        yield Line(where, "p50 over float's", comparison.measurement[CONVKIT].ratios["p50"], "<=", 1.0, "x")


def _as_accurate(comparison: Comparison, where: str, rival: str) -> Iterator[Line]:
    """No worse than the rival; where the rival beats float, which is chance, no worse than float."""
    for metric in comparison.case.accuracy:
        limit = min(comparison.score(rival, metric), comparison.score(FLOAT, metric))
        what = f"{metric.rpartition(':')[2]}, {rival}'s as limit"
        unit = "dB" if metric == "psnr" else "%"
        yield Line(where, what, point(comparison.score(CONVKIT, metric)), ">=", limit, unit)


def of_zero_shot(found: ZeroShot, engines: Sequence[str]) -> Iterator[Line]:
    """Within half a point of float."""
    limit = found.accuracy[FLOAT] - LOST_ZERO_SHOT
    for engine in engines:
        measured = point(found.accuracy[name_of(engine)])
        yield Line(f"lite0, {engine}", f"zero-shot on {found.images} images", measured, ">=", limit, "%")


def of_failure(where: str, failure: FailedError) -> Line:
    """A command that failed misses by its exit code."""
    return Line(where, f"convkit quantize: {failure}", point(failure.code), "<=", 0.0, "exit code")


def of_quantize(engine: str, product: Quantized) -> Iterator[Line]:
    """Time and memory of the whole command."""
    where, command = f"lite0, {engine}", product.command
    yield Line(where, "convkit quantize", point(command.seconds), "<=", QUANTIZE_SECONDS, "s")
    yield Line(where, "convkit quantize, peak", point(command.peak / 2**30), "<=", QUANTIZE_BYTES / 2**30, "GiB")


def of_help(seconds: Sequence[float]) -> Iterator[Line]:
    """Median of its calls, with the fastest and slowest."""
    measured = Interval(median(seconds), min(seconds), max(seconds))
    yield Line("command line", "convkit --help", measured, "<=", HELP_SECONDS, "s")


def of_resolve(found: Resolved) -> Iterator[Line]:
    """The slowest budget, for a person may ask for any; and the front."""
    where, slowest = f"tables of {LAYERS} layers, {EDGES} edges", max(found.budgets)
    yield Line(where, "a new budget", Interval(slowest, min(found.budgets), slowest), "<=", RESOLVE_SECONDS, "s")
    yield Line(where, f"a front of {found.points} points", point(found.front), "<=", FRONT_SECONDS, "s")


def of_sensitivity(found: Correlation) -> Iterator[Line]:
    """Ranked as measured, in time on the classifier."""
    where = f"{found.network}, sensitivity"
    yield Line(where, f"Spearman over {found.pairs} pairs", point(found.all_pairs), ">=", RANKED, "")
    if found.network == "lite0":
        yield Line(where, "four options a layer", point(found.seconds), "<=", SENSITIVITY_SECONDS, "s")


def of_predictions(found: Predictions) -> Iterator[Line]:
    """The median error over random mixtures, with the smallest and the largest."""
    where, errors = f"{found.network}, {found.engine} {found.precision}", found.errors
    measured = Interval(median(errors), errors[0], errors[-1])
    yield Line(where, "latency foretold, error", measured, "<=", FORETOLD, "")


def of_enumerated(found: Enumerated) -> Iterator[Line]:
    """The worst of all budgets."""
    worst = max(found.excess)
    where, what = f"{found.plans} plans, onnxruntime", "of a budget's result from the true front"
    yield Line(where, what, Interval(worst, min(found.excess), worst), "<=", FROM_FRONT, "")


def of_matrix(found: Sequence[Cell], numbers: Sequence[Numbers]) -> Iterator[Line]:
    """No layer departs from its plan, and what does not build is refused beforehand; Lite0's builds are quick; ONNX
    Runtime's numbers are the simulation's."""
    departing = sum(len(cell.departing) for cell in found)
    yield Line("trt-rtx", "layers that depart from the plan", point(departing), "<=", 0, "")
    unforeseen = sum(not cell.foreseen for cell in found)
    yield Line("trt-rtx", "engines that fail and were not refused", point(unforeseen), "<=", 0, "")
    slowest = max(cell.seconds for cell in found if cell.network == "lite0")
    yield Line("trt-rtx, lite0", "one engine built", point(slowest), "<=", BUILD_SECONDS, "s")
    for one in numbers:
        where = f"onnxruntime, {one.network}, {one.number}"
        yield Line(where, "against the simulation", point(one.sqnr), ">=", AS_SIMULATED, "dB")


def of_rounding(found: Rounding) -> Iterator[Line]:
    """Four bits in every layer, and on average, and five against float; floats and integers each where they belong."""
    of_float = found.ways[FLOAT]
    for way in (TRAINED, OF_BOTH.format(AVERAGED.format(FOUR))):
        place, best = f"lite0, W4A8, {way}", found.ways[way]
        lost = point(of_float.zero_shot - best.zero_shot)
        yield Line(place, f"zero-shot lost on {found.images} images", lost, "<=", LOST_IN_FOUR_BITS, "points")
        yield Line(place, "top-1 lost", point(of_float.top1 - best.top1), "<=", LOST_ON_PHOTOS, "points")
    average = found.ways[AVERAGED.format(FIVE)]
    where = "lite0, 5 bits on average"
    yield Line(where, "zero-shot lost", point(of_float.zero_shot - average.zero_shot), "<=", LOST_IN_FIVE, "points")
    yield Line(where, "top-1 lost", point(of_float.top1 - average.top1), "<=", LOST_IN_FIVE, "points")
    (light, tailed), (light_float, tailed_float) = found.sqnr["int8"], found.sqnr["e3m4"]
    yield Line("SQNR", "e3m4 over int8, heavy tails", point(tailed_float - tailed), ">=", FLOATS_WIN, "dB")
    yield Line("SQNR", "int8 over e3m4, Gaussian", point(light - light_float), ">=", FLOATS_LOSE, "dB")
