"""What is measured for the latency table, and whose times it then holds."""

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest

from convkit.cli import batches, quantizing, timing
from convkit.cli.building import Builder
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.progress import Progress
from convkit.cli.quantizing import Job
from convkit.cli.searchspace import Means, Wishes
from convkit.cli.work import Work
from convkit.compress import placement
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search.problem import Problem
from convkit.compress.search.remedies import EXACT
from convkit.compress.search.tables import Tables
from convkit.runtimes.latency.table import Fingerprint, LatencyTable
from tests.cli import quantizable

File = Callable[[LayerPlan], bytes]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return quantizable.job(quantizable.write(tmp_path_factory.mktemp("timing")), threads=1)


@pytest.fixture(scope="module")
def low(work: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[LayerPlan, File]:
    """A layer as it is placed; and the build of all in low precision, by that layer's line in the plan."""
    folder = tmp_path_factory.mktemp("builds")
    task = quantizing.task(work, *batches.split(work.data, work.seed))
    model = prepare(work.model, EXACT, task.data.probe)
    builder = Builder(model, work.target, task.data, folder, Work(), work.engine)
    means = Means(work, Wishes(("int8",)), Progress(), Checkpoint(), folder, Work())
    placed = placement.place(model.graph, work.target)

    def file(line: LayerPlan) -> bytes:
        plan = builder.complete(Plan(work.model.digest, work.target.name, EXACT, {**placed, "conv3": line}))
        return timing._job(means, builder, plan, single=True).write(placed).read_bytes()

    return placed["conv3"], file


def weights(written: bytes) -> set[int]:
    stored = onnx.load_from_string(written).graph.initializer
    return {tensor.data_type for tensor in stored if "weight_quantized" in tensor.name}


def test_floats_that_an_engine_makes_no_network_in_are_told() -> None:
    layers = {"conv": {"fp32": 2.0, "bf16": 1.0}}
    table = LatencyTable(Fingerprint("", "", "", "", {}, {}), False, "fp32", layers, (), {}, 0.0)
    target = targets.load("trt-rtx")
    assert timing._unbuilt(("int8", "bf16", "fp16"), table, target) == ["fp16"]
    assert timing._unbuilt(("int8", "bf16"), table, target) == []
    assert timing._unbuilt(("int8", "fp16"), table, targets.load("onnxruntime-cpu")) == []


@pytest.mark.parametrize("change", [{"weight": "int4"}, {"activation": "int8"}, {"weight": None}])
def test_a_build_has_layers_as_they_are_placed_however_they_are_pinned(
    low: tuple[LayerPlan, File], change: dict[str, str | None]
) -> None:
    line, file = low
    usual = file(line)
    assert len(weights(usual)) == 1
    assert file(replace(line, **change)) == usual


def test_a_build_has_the_plans_ranges_where_it_runs_alike(low: tuple[LayerPlan, File]) -> None:
    line, file = low
    assert file(replace(line, granularity="tensor")) != file(line)


def tables(work: Job, *, estimated: bool = False) -> Tables:
    return Tables(work.model.digest, Problem({}), timing.device(work), estimated=estimated)


def test_seconds_hold_where_and_as_they_were_measured(work: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tables(work)
    timing.check_device(work, "tables.json", known)
    timing.check_device(work, "tables.json", replace(known, digests={}))  # made before this was told
    timing.check_device(replace(work, threads=2), "tables.json", tables(work, estimated=True))
    with pytest.raises(ConvkitError, match=r"tables.json was measured with another number of threads;"):
        timing.check_device(replace(work, threads=2), "tables.json", known)
    monkeypatch.setattr("convkit.runtimes.bench.machine.lasting", lambda: {"cpu": "another"})
    with pytest.raises(ConvkitError, match=r"was measured with another machine;"):
        timing.check_device(work, "tables.json", known)
