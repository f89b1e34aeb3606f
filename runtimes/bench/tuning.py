"""The tuner: the knobs at which an engine runs one network fastest, told by measuring them side by side.

First every other value of every knob alone beside the setting it began with; then the best of these, together and the
strongest one alone, once more. Only what was surely faster both times is taken: with a dozen values to try, one of them
looks faster by chance now and then. Knobs that change results are none of its business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress import parts
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Settings, Workbench, measure
from convkit.runtimes.session.knobs import THREADS, Knobs, Value, in_words

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.runtimes.session import Options, Runtime

START = "start"
"""What the setting that the others are compared with is called."""
_LOOK = 0.6
"""Share of the budget that goes into the first look; the rest confirms it."""
_WORTH = 0.99
"""A network that takes more of the time than this is not worth another setting."""


@dataclass(frozen=True, slots=True)
class Job:
    """The network at `path` on `engine`, as `options` have it; knobs that are `fixed` stay.

    `data`: what the calls run on, random numbers without. `budget`: seconds of timing, loading not included.
    """

    engine: str
    path: str
    options: Options
    data: Data | None = None
    fixed: Collection[str] = ()
    budget: float = 5.0
    seed: int = 0
    batch: int | None = None
    """Samples a call, None for what the network says."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The fastest `options`, their time over that of those it began with, and what each value alone took."""

    options: Options
    ratio: Interval
    tried: Mapping[str, Interval]


def tune(job: Job, workbench: Workbench | None = None, say: Callable[[str], None] = lambda _line: None) -> Tuned:
    """The options at which the network surely runs faster than at `job.options`; these where there are none."""
    found = list(settings(job.engine, job.options, job.fixed))
    if not found:
        return Tuned(job.options, point(1.0), {})
    say(f"trying {len(found)} settings of {job.engine}")
    tried = _ratios(job, found, _LOOK, workbench)
    finalists = _finalists(found, tried)
    if not finalists:
        return Tuned(job.options, point(1.0), tried)
    again = _ratios(job, finalists, 1 - _LOOK, workbench)
    surely = [knobs for knobs in finalists if _is_faster(again[in_words(knobs)])]
    if not surely:
        return Tuned(job.options, point(1.0), tried)
    best = min(surely, key=lambda knobs: (again[in_words(knobs)].value, len(knobs)))
    say(f"{job.engine} runs it in {again[in_words(best)].value:.2f}x the time with {in_words(best)}")
    return Tuned(_set(job.options, best), again[in_words(best)], tried)


def settings(engine: str, options: Options, fixed: Collection[str] = ()) -> Iterator[Knobs]:
    """Every other value worth trying of every knob of `engine`, each alone."""
    runtime: Runtime = parts.load("runtimes", engine)
    for knob in runtime.knobs:
        if knob.name not in fixed:
            held = getattr(options, knob.name)
            values = _fewer(held) if knob == THREADS else knob.tried
            yield from ({knob.name: value} for value in values if value != held)


def _fewer(threads: int) -> Sequence[Value]:
    """Powers of two below `threads`: more than were allowed are not tried."""
    return [2**power for power in range(threads.bit_length()) if 2**power < threads]


def _set(options: Options, knobs: Knobs) -> Options:
    return dataclasses.replace(options, **dict(knobs))  # type: ignore[arg-type]  # values of the knobs themselves


def _ratios(job: Job, found: Sequence[Knobs], share: float, workbench: Workbench | None) -> dict[str, Interval]:
    """Time of each setting over that of the start, all side by side."""
    candidates = [Candidate(START, job.engine, job.path, job.options)]
    candidates += [Candidate(in_words(knobs), job.engine, job.path, _set(job.options, knobs)) for knobs in found]
    asked = Settings(budget=job.budget * share, seed=job.seed, batch=job.batch)
    measured = measure(candidates, START, job.data, asked, workbench)
    return {result.name: result.ratios["p50"] for result in measured.results if result.name != START}


def _finalists(found: Sequence[Knobs], tried: Mapping[str, Interval]) -> list[Knobs]:
    """The surely faster values: the best of every knob together, and the best of all alone."""
    faster = [knobs for knobs in found if _is_faster(tried[in_words(knobs)])]
    ordered = sorted(faster, key=lambda knobs: tried[in_words(knobs)].value)
    together: dict[str, Value] = {}
    for knobs in ordered:
        together |= {key: value for key, value in knobs.items() if key not in together}
    alone = ordered[:1]
    return alone if len(together) < 2 else [together, *alone]  # noqa: PLR2004 - one is alone anyway


def _is_faster(ratio: Interval) -> bool:
    return ratio.high < 1.0 and ratio.value <= _WORTH
