"""A table is measured once, and again when anything that its times depend on is another."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.compress import code
from convkit.compress import target as targets
from convkit.runtimes.latency import cache, disturbance, measure
from convkit.runtimes.latency.cache import cached
from convkit.runtimes.latency.disturbance import Disturbance
from convkit.runtimes.latency.table import Fingerprint, LatencyTable
from convkit.runtimes.session import Options
from tests.compress.network import Net

PRINT = Fingerprint("model", "target", "onnxruntime", "1.0", {"cpu": "any", "usable": 2}, {"threads": 2})
OTHERS = {
    "model": "another",
    "target": "another",
    "engine": "openvino",
    "version": "1.1",
    "machine": {"cpu": "any", "usable": 4},
    "options": {"threads": 1},
}


class Bench:
    """Counts what is measured."""

    def __init__(self, *, estimated: bool = False) -> None:
        self.runs, self.estimated, self.spread = 0, estimated, 0.0

    def __call__(self, fingerprint: Fingerprint) -> LatencyTable:
        self.runs += 1
        return LatencyTable(
            fingerprint, self.estimated, "fp32", {}, (), {}, float(self.runs), 1.0, Disturbance(0.0, self.spread)
        )


def one(
    fingerprint: Fingerprint, bench: Bench, kept: Path, calm: Callable[[], bool] = disturbance.calm
) -> LatencyTable:
    return cached([fingerprint], lambda: [bench(fingerprint)], kept, calm)[0]


def test_tables_are_of_one_measurement(tmp_path: Path) -> None:
    bench, other = Bench(), dataclasses.replace(PRINT, model="another")

    def both() -> list[LatencyTable]:
        return [bench(PRINT), bench(other)]

    first = one(PRINT, bench, tmp_path)
    found = cached([PRINT, other], both, tmp_path)
    assert first.rest == 1.0
    assert [table.rest for table in found] == [2.0, 3.0]
    assert cached([PRINT, other], both, tmp_path) == found
    assert bench.runs == 3


def test_the_same_is_measured_once(tmp_path: Path) -> None:
    bench = Bench()
    first, second = (one(PRINT, bench, tmp_path / "kept") for _ in range(2))
    assert first == second
    assert bench.runs == 1


@pytest.mark.parametrize("field", OTHERS)
def test_anything_else_is_measured_anew(field: str, tmp_path: Path) -> None:
    bench, other = Bench(), dataclasses.replace(PRINT, **{field: OTHERS[field]})
    one(PRINT, bench, tmp_path)
    assert one(other, bench, tmp_path).rest == 2.0


@pytest.mark.parametrize(
    ("before", "after", "calm", "kept"),
    [
        (0.2, 0.01, True, 0.01),
        (0.2, 0.3, True, 0.2),
        (0.2, 0.01, False, 0.2),
        (0.02, 0.01, True, 0.02),
    ],
)
def test_what_was_disturbed_is_measured_again_when_it_is_calm(
    before: float, after: float, calm: bool, kept: float, tmp_path: Path
) -> None:
    bench = Bench()
    for spread in (before, after):
        bench.spread = spread
        found = one(PRINT, bench, tmp_path, lambda: calm)
    assert found.disturbance.spread == kept
    again = one(PRINT, bench, tmp_path, lambda: False)
    assert again == found


def test_an_estimate_is_not_kept(tmp_path: Path) -> None:
    bench = Bench(estimated=True)
    one(PRINT, bench, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert one(PRINT, Bench(), tmp_path).rest == 1.0


def test_a_broken_file_is_measured_again(tmp_path: Path) -> None:
    bench = Bench()
    (tmp_path / f"{PRINT.digest}.json").write_text("{")
    one(PRINT, bench, tmp_path)
    one(PRINT, bench, tmp_path)
    assert bench.runs == 1


def test_a_table_under_the_name_of_another_is_not_taken(tmp_path: Path) -> None:
    bench, other = Bench(), dataclasses.replace(PRINT, version="2")
    one(PRINT, bench, tmp_path)
    (tmp_path / f"{PRINT.digest}.json").rename(tmp_path / f"{other.digest}.json")
    assert one(other, bench, tmp_path).fingerprint == other


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert one(PRINT, Bench(), tmp_path / "file" / "kept").rest == 1.0


def test_it_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "convkit" / "latency"


def test_what_another_convkit_measured_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    net, target = Net(), targets.load("onnxruntime-cpu")
    model = net.model(net.head(net.conv("x", 4)))
    here, again = (measure.fingerprint(model, target, (), Options()) for _ in range(2))
    monkeypatch.setattr(code, "digest", lambda: "ab" * 32)
    other = measure.fingerprint(model, target, (), Options())
    assert here.digest == again.digest != other.digest
