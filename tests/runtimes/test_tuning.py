"""The tuner on a virtual clock: it finds the fastest knobs, keeps the others, and tries no more than it must."""

from collections.abc import Callable

import pytest

from convkit.runtimes.bench import tuning
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import VirtualClock
from convkit.runtimes.bench.measure import Workbench
from convkit.runtimes.bench.tuning import Job, Tuned, tune
from convkit.runtimes.bench.worker import InlineWorker, Worker
from convkit.runtimes.null import NullSession
from convkit.runtimes.session import Options
from tests.runtimes.simulation import noise

Seconds = Callable[[Options], float]
MILLI = 1e-3


def tuned(seconds: Seconds, job: Job | None = None, trial: int | None = None) -> tuple[Tuned, list[Options], float]:
    """What the tuner finds where a call takes `seconds` of its options, the options it opened, and the time it took.

    `trial`: under recorded noise, from another moment of it each.
    """
    clock, opened = VirtualClock(), list[Options]()
    slowness = (lambda _now: 1.0) if trial is None else noise("calm", 7.0 * trial)

    def open_worker(candidate: Candidate) -> Worker:
        opened.append(candidate.options)
        return InlineWorker(NullSession(seconds(candidate.options), clock, slowness), clock)

    job = job or Job("onnxruntime", "10ms", Options())
    return tune(job, Workbench(clock, open_worker)), opened, clock.now()


def test_a_faster_knob_is_turned_and_the_others_stay() -> None:
    found, opened, spent = tuned(lambda o: MILLI if o.spinning else 0.8 * MILLI)
    assert found.options == Options(spinning=False)
    assert found.ratio.value == pytest.approx(0.8)
    assert set(found.tried) == {"threads=1", "spinning=off", "optimization=extended"}
    assert len(opened) == 4 + 2  # the start and three values, then the start and the one that was faster
    assert spent < 2 * 5.0


def test_knobs_that_help_together_are_turned_together() -> None:
    def seconds(options: Options) -> float:
        slow = 0.8 if options.optimization == "extended" else 1.0
        return MILLI * slow * (0.7 if options.threads == 1 else 1.0)

    assert tuned(seconds)[0].options == Options(threads=1, optimization="extended")


def test_of_knobs_that_get_into_each_others_way_the_stronger_is_turned() -> None:
    def seconds(options: Options) -> float:
        if options.threads == 1 and not options.spinning:
            return 1.5 * MILLI
        return MILLI * (0.8 if options.threads == 1 else 0.9 if not options.spinning else 1.0)

    assert tuned(seconds)[0].options == Options(threads=1)


def test_equally_fast_knobs_stay_at_what_they_were() -> None:
    found, opened, _ = tuned(lambda _o: MILLI)
    assert found.options == Options()
    assert found.ratio.value == 1
    assert len(opened) == 4  # nothing to confirm


def test_what_gains_less_than_a_percent_is_not_worth_it() -> None:
    assert tuned(lambda o: MILLI if o.spinning else 0.995 * MILLI)[0].options == Options()


def test_fixed_knobs_stay_even_where_another_value_is_faster() -> None:
    job = Job("onnxruntime", "10ms", Options(threads=8), fixed=("threads", "spinning"))
    found, opened, _ = tuned(lambda o: MILLI * o.threads * (1 if o.spinning else 0.5), job)
    assert found.options == job.options
    assert all(o.threads == 8 and o.spinning for o in opened)


def test_no_more_threads_than_were_allowed_are_tried() -> None:
    job = Job("openvino", "10ms", Options(threads=6), fixed=("pinning", "hyperthreading", "partitioner"))
    found, opened, _ = tuned(lambda o: MILLI * abs(o.threads - 4.1), job)
    assert {o.threads for o in opened} == {1, 2, 4, 6}
    assert found.options.threads == 4


def test_an_engine_without_knobs_is_not_even_opened() -> None:
    found, opened, _ = tuned(lambda _o: MILLI, Job("null", "10ms", Options(threads=1), fixed=("spinning",)))
    assert (found.options, opened) == (Options(threads=1), [])


def test_what_changes_results_is_never_tried() -> None:
    assert not [knobs for knobs in tuning.settings("openvino", Options()) if "precision" in knobs]


def test_noise_alone_turns_no_knob() -> None:
    job = Job("onnxruntime", "10ms", Options(), budget=3.0)
    wrong = [trial for trial in range(12) if tuned(lambda _o: 5 * MILLI, job, trial)[0].options != Options()]
    assert wrong == []


def test_a_tenth_is_found_under_noise() -> None:
    job = Job("onnxruntime", "10ms", Options(), budget=5.0)
    right = [tuned(lambda o: MILLI * (5 if o.spinning else 4.5), job, t)[0].options.spinning for t in range(6)]
    assert right.count(False) >= 5
