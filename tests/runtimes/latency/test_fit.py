"""The Fit: what is put into a virtual engine comes out of its profiles, noise and all."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress.plan import LayerPlan
from convkit.runtimes.bench.clock import VirtualClock
from convkit.runtimes.bench.worker import InlineWorker
from convkit.runtimes.latency.builds import Build
from convkit.runtimes.latency.fit import fit
from convkit.runtimes.latency.profile import Profile, Schedule, profile
from convkit.runtimes.latency.table import Fingerprint, LatencyTable, predict
from tests.runtimes.latency import virtual
from tests.runtimes.latency.virtual import FLOAT, LOW, Truth, VirtualSession

PRINT = Fingerprint("model", "target", "engine", "1", {}, {})


def fitted(known: Truth, folder: Path, noisy: int | None = None, overhead: float = 1.0) -> LatencyTable:
    """The table that convkit makes of the virtual engine; `noisy`: seed of other tenants' load."""
    clock, load = VirtualClock(), random.Random(noisy)

    def noise(_moment: float) -> float:
        return 1.0 if noisy is None else load.choice([1.0, 1.0, 1.02, 1.05, 1.3, 3.0])

    builds = virtual.builds(known, folder)
    sessions = [VirtualSession(known, build.formats, clock, noise, overhead) for build in builds]
    workers = [InlineWorker(session, clock) for session in sessions]
    for worker in workers:
        worker.prepare([{}])
    profiles = profile(workers, {}, Schedule(20.0, clock=clock))
    found = fit(known.structure, list(zip(builds, profiles, strict=True)), FLOAT)
    tensors = known.structure.tensors
    return LatencyTable(PRINT, False, FLOAT, found.layers, tensors, found.changes, found.rest, found.mapped)


@settings(max_examples=20)
@given(st.integers(0, 100), st.sets(st.integers(0, 5)))
def test_every_mixture_is_predicted_from_four(
    tmp_path_factory: pytest.TempPathFactory, seed: int, low: set[int]
) -> None:
    known = virtual.truth(seed=seed)
    table = fitted(known, tmp_path_factory.mktemp("builds"))
    formats = {f"layer{i}": LOW for i in low}
    assert predict(table, formats) == pytest.approx(known.seconds(formats), rel=1e-3)


def test_layers_and_changes_come_out_as_they_were_put_in(tmp_path: Path) -> None:
    known = virtual.truth()
    table = fitted(known, tmp_path)
    for name, times in list(known.layers.items())[:-1]:  # behind the last, a change at the end belongs to the layer
        assert table.layers[name] == pytest.approx(times, rel=1e-6)
    assert table.rest == pytest.approx(known.rest, rel=1e-6)
    changes = table.changes["layer0_out"]
    assert set(changes) == {f"{FLOAT}>{LOW}", f"{LOW}>{FLOAT}"}  # of 16 bits nothing was seen there
    assert changes == pytest.approx({key: known.changes["layer0_out"][key] for key in changes}, rel=1e-6)


def test_a_profiler_that_slows_every_node_changes_nothing(tmp_path: Path) -> None:
    known = virtual.truth()
    formats = {"layer1": LOW, "layer2": LOW}
    found = predict(fitted(known, tmp_path, overhead=1.7), formats)
    assert found == pytest.approx(known.seconds(formats), rel=1e-3)


@pytest.mark.parametrize(("slower", "fewest", "most"), [(1, 20, 20), (20, 4, 19), (1000, 3, 3)])
def test_a_slow_network_is_profiled_in_fewer_calls(slower: int, fewest: int, most: int, tmp_path: Path) -> None:
    known, clock = virtual.truth(), VirtualClock()
    sessions = [
        VirtualSession(known, build.formats, clock, lambda _moment: float(slower))
        for build in virtual.builds(known, tmp_path)
    ]
    workers = [InlineWorker(session, clock) for session in sessions]
    for worker in workers:
        worker.prepare([{}])
    profile(workers, {}, Schedule(1.0, clock=clock))
    calls = {number for session in sessions for number in session.repeats}
    assert fewest <= min(calls) <= max(calls) <= most


@pytest.mark.parametrize("seed", range(5))
def test_other_tenants_move_a_prediction_little(seed: int, tmp_path: Path) -> None:
    known = virtual.truth(seed=seed)
    table = fitted(known, tmp_path, noisy=seed)
    formats = {"layer1": LOW, "layer2": LOW, "layer5": LOW}
    ratio = predict(table, formats) / predict(table, {})
    assert ratio == pytest.approx(known.seconds(formats) / known.seconds({}), rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_a_build_that_met_a_slow_moment_is_told_by_its_kernels(seed: int, tmp_path: Path) -> None:
    """Two builds were timed 25 % too slow, which their noise does not exclude; what reads its own format says so."""
    known = virtual.truth(40, seed)
    pairs = [name for index, name in enumerate(known.layers) if index % 4 > 1]
    path = virtual.builds(known, tmp_path)[0].path
    chosen = {
        "float": [],
        "low": list(known.layers),
        "pairs": pairs,
        "others": [n for n in known.layers if n not in pairs],
    }
    found = []
    for name, low in chosen.items():
        build = Build(name, {layer: LayerPlan(LOW, "int8") for layer in low}, path)
        slow = 1.25 if name in ("pairs", "others") else 1.0
        nodes = {key: seconds * slow for key, seconds in known.nodes(build.formats).items()}
        found.append((build, Profile(sum(nodes.values()), nodes, 0.3, 0.15)))
    fits = fit(known.structure, found, FLOAT)
    table = LatencyTable(
        PRINT, False, FLOAT, fits.layers, known.structure.tensors, fits.changes, fits.rest, fits.mapped
    )
    formats = dict.fromkeys(pairs, LOW)
    assert predict(table, formats) == pytest.approx(known.seconds(formats), rel=0.02)
