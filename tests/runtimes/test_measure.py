"""Measuring: real workers, real engines, and what happens when something goes wrong."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.runtimes.bench import inputs, rounds
from convkit.runtimes.bench.block import BlockPlan, time_block
from convkit.runtimes.bench.candidate import Candidate, parse
from convkit.runtimes.bench.clock import VirtualClock
from convkit.runtimes.bench.machine import fingerprint, peak_memory
from convkit.runtimes.bench.measure import Settings, Workbench, measure
from convkit.runtimes.bench.size import model_size
from convkit.runtimes.bench.worker import InlineWorker, ProcessWorker, Worker
from convkit.runtimes.null import NullSession
from convkit.runtimes.session import Options
from tests.runtimes import network

QUICK = Settings(budget=0.5)
SAMPLES = [{"input": np.zeros(1, np.float32)}]


def test_two_engines_side_by_side(tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx")
    names = ("onnxruntime", "openvino", "eager")
    measured = measure([Candidate(name, name, net) for name in names], settings=QUICK)
    assert measured.baseline == "onnxruntime"
    assert measured.rounds >= rounds.FEWEST
    for result in measured.results:
        assert 0 < result.seconds["p50"].value <= result.seconds["p99"].value
        assert result.throughput == pytest.approx(1 / result.seconds["mean"].value)
        assert result.memory > 10e6
        assert result.load_seconds > 0
        assert result.size == Path(net).stat().st_size
    assert measured["onnxruntime"].ratios["p50"].value == 1
    # An ONNX Runtime process never loads torch.
    assert measured["onnxruntime"].memory < measured["eager"].memory


def test_metrics_compare_with_the_baseline(tmp_path: Path) -> None:
    net, other = network.write(tmp_path / "net.onnx"), network.write(tmp_path / "other.onnx", seed=9)
    random = np.random.default_rng(0)
    data = Data({"x": random.standard_normal((20, 3, 16, 16)).astype(np.float32)}, random.integers(10, size=20), "d")
    candidates = [
        Candidate("a", "onnxruntime", net),
        Candidate("same", "openvino", net),
        Candidate("b", "onnxruntime", other),
    ]
    measured = measure(candidates, data=data, settings=Settings(budget=0.5, metrics=("agreement", "top1")))
    assert measured["a"].metrics["agreement"] == measured["same"].metrics["agreement"] == 100
    assert measured["b"].metrics["agreement"] < 100
    assert measured.data == "d"


def test_a_worker_that_is_killed_is_one_clear_error() -> None:
    def killed(candidate: Candidate) -> Worker:
        worker = ProcessWorker(candidate)
        os.kill(worker.pid, signal.SIGKILL)
        return worker

    with pytest.raises(ConvkitError, match=r"null on 1ms crashed \(SIGKILL\)"):
        measure([Candidate("a", "null", "1ms")], settings=QUICK, workbench=Workbench(open=killed))


def test_no_worker_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ProcessWorker] = []

    def remember(candidate: Candidate) -> Worker:
        opened.append(ProcessWorker(candidate))
        return opened[-1]

    with pytest.raises(ConvkitError, match="no time"):
        measure(
            [Candidate("a", "null", "1ms"), Candidate("b", "null", "soon")], settings=QUICK,
            workbench=Workbench(open=remember),
        )  # fmt: skip
    assert len(opened) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(opened[0].pid, 0)


@pytest.mark.parametrize(
    ("candidates", "baseline", "words"),
    [
        ([], None, "nothing"),
        ([Candidate("a", "null", "1ms"), Candidate("a", "null", "2ms")], None, "same name"),
        ([Candidate("a", "null", "1ms")], "b", "no candidate"),
    ],
)
def test_wrong_candidates(candidates: list[Candidate], baseline: str | None, words: str) -> None:
    with pytest.raises(ConvkitError, match=words):
        measure(candidates, baseline, settings=QUICK)


def test_an_early_end_comes_from_narrow_intervals_only() -> None:
    clock = VirtualClock()

    def open_worker(candidate: Candidate) -> Worker:
        return InlineWorker(NullSession(float(candidate.path), clock), clock)

    measured = measure(
        [Candidate("a", "null", "0.01"), Candidate("b", "null", "0.02")],
        settings=Settings(budget=20), workbench=Workbench(clock, open_worker),
    )  # fmt: skip
    assert measured.rounds == 20
    assert measured["b"].ratios["p50"].value == pytest.approx(2)
    assert clock.now() < 20


@settings(max_examples=20)
@given(st.floats(1e-5, 3), st.integers(1, 4), st.floats(1, 60))
def test_a_budget_is_kept_unless_six_rounds_take_longer(call: float, count: int, budget: float) -> None:
    clock = VirtualClock()
    workers = [InlineWorker(NullSession(call, clock), clock, SAMPLES) for _ in range(count)]
    found = rounds.run_rounds(workers, rounds.Schedule(budget, seed=0), clock)
    assert rounds.FEWEST <= len(found) <= rounds.MOST
    smallest = 2 * rounds.FEWEST * count * (call + rounds._SHORTEST * 2)
    assert clock.now() <= max(budget * 1.5, 2 * smallest)


def test_every_round_has_every_candidate_in_an_order_of_its_own() -> None:
    clock, order = VirtualClock(), list[str]()

    class Noting(InlineWorker):
        def time(self, plan: BlockPlan) -> object:  # type: ignore[override]
            order.append(str(id(self)))
            return super().time(plan)

    workers = [Noting(NullSession(0.01, clock), clock, SAMPLES) for _ in range(3)]
    rounds.run_rounds(workers, rounds.Schedule(5, seed=0), clock)
    turns = [tuple(order[i : i + 3]) for i in range(3, len(order), 3)]
    assert all(len(set(turn)) == 3 for turn in turns)
    assert len(set(turns)) > 1


def test_warm_up_lasts_until_steady() -> None:
    clock = VirtualClock()
    cold = NullSession(0.01, clock, noise=lambda now: 3.0 if now < 0.1 else 1.0)
    block = time_block(cold, SAMPLES, clock, BlockPlan(seconds=0.1, warm_seconds=1.0))
    assert block.steady
    assert block.seconds == pytest.approx(np.full(len(block.seconds), 0.01))
    restless = NullSession(0.01, clock, noise=lambda now: 1 + 10 * now)
    assert not time_block(restless, SAMPLES, clock, BlockPlan(seconds=0.1, warm_seconds=0.2)).steady


def spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", shape, dtype)


def test_inputs_are_never_zeros_and_the_same_for_a_seed() -> None:
    specs = (spec(1, 3, 8, 8), TensorSpec("ids", (1, 4), "int64"), TensorSpec("image", (1, 8, 8), "uint8"))
    shape = inputs.shapes(specs, {}, None)
    first, again = inputs.random(specs, shape, 3), inputs.random(specs, shape, 3)
    assert {name: array.dtype.name for name, array in first[0].items()} == {
        "x": "float32", "ids": "int64", "image": "uint8"
    }  # fmt: skip
    assert abs(first[0]["x"]).max() > 0
    np.testing.assert_array_equal(first[1]["x"], again[1]["x"])
    assert not np.array_equal(first[0]["x"], first[1]["x"])


def test_shapes() -> None:
    assert inputs.shapes([spec("N", 3, 8)], {}, None) == {"x": (1, 3, 8)}
    assert inputs.shapes([spec("N", 3, 8)], {}, 4) == {"x": (4, 3, 8)}
    assert inputs.shapes([spec("N", 3, "H")], {"x": (2, 3, 9)}, None) == {"x": (2, 3, 9)}
    with pytest.raises(ConvkitError, match="--shape"):
        inputs.shapes([spec("N", 3, "H")], {}, None)
    with pytest.raises(ConvkitError, match="fixed batch"):
        inputs.shapes([spec(1, 3, 8)], {}, 4)
    with pytest.raises(ConvkitError, match="no input 'y'"):
        inputs.check_shapes([spec(1)], ["y"])


def test_another_candidates_inputs_are_matched_by_name_else_by_place() -> None:
    samples = [{"a": np.ones(2, np.float32), "b": np.zeros(3, np.float32)}]
    specs = (TensorSpec("b", (3,), "float32"), TensorSpec("a", (2,), "float16"))
    fitted = inputs.fitted(specs, samples)[0]
    assert fitted["b"].shape == (3,)
    assert fitted["a"].dtype == np.float16
    renamed = inputs.fitted((TensorSpec("p", (2,), "float32"), TensorSpec("q", (3,), "float32")), samples)[0]
    assert renamed["p"].shape == (2,)
    with pytest.raises(ConvkitError, match="1 inputs"):
        inputs.fitted((spec(1),), samples)


def test_candidates_are_written_engine_colon_model() -> None:
    found = parse("openvino,precision=bf16,threads=1:net.onnx", None, Options())
    assert (found.engine, found.path, found.options.precision, found.options.threads) == (
        "openvino",
        "net.onnx",
        "bf16",
        1,
    )
    assert parse("package.module:function", "eager", Options()).path == "package.module:function"
    assert not parse("onnxruntime,spinning=off:a", None, Options()).options.spinning


@pytest.mark.parametrize(
    ("text", "engine", "words"),
    [
        ("net.onnx", None, "--engine"),
        ("onnxruntim:net.onnx", None, "names no engine"),
        ("net.onnx", "onnxruntim", "onnxruntim"),
        ("null:", None, "no model"),
        ("null,speed=3:1ms", None, "no knob 'speed'"),
        ("null,threads=two:1ms", None, "threads=two"),
        ("null,spinning=maybe:1ms", None, "spinning=maybe"),
        ("openvino,precision=int3:net.onnx", None, "precision"),
    ],
)
def test_a_candidate_that_cannot_be(text: str, engine: str | None, words: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        parse(text, engine, Options())
    assert words in str(raised.value)


def test_size_counts_the_weights_beside_the_file(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(network.write(tmp_path / "net.onnx"))
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert model_size(str(tmp_path / "out.onnx")) == sum(
        (tmp_path / f).stat().st_size for f in ("out.onnx", "weights.bin")
    )
    assert model_size("10ms") is None


def test_the_digest_is_of_the_weights_beside_the_file_too(tmp_path: Path) -> None:
    import onnx

    files = []
    for seed in (0, 9):
        folder = tmp_path / str(seed)
        folder.mkdir()
        model = onnx.load(network.write(folder / "net.onnx", seed=seed))
        onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
        files.append(folder / "net.onnx")
    assert files[0].read_bytes() == files[1].read_bytes()
    measured = measure([Candidate(str(file), "onnxruntime", str(file)) for file in files], settings=QUICK)
    assert len({result.digest for result in measured.results}) == 2


def test_metrics_leave_out_what_batches_do_not_join(tmp_path: Path) -> None:
    """An output without samples beside the one that is scored."""
    import onnx

    model = onnx.load(network.write(tmp_path / "net.onnx", batch="N"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["scores"], ["mean"], "mean", keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "net.onnx")
    data = Data(network.sample(6), None, "d")
    given = Settings(budget=0.1, batch=2, metrics=("agreement",))
    measured = measure([Candidate("a", "onnxruntime", str(tmp_path / "net.onnx"))], data=data, settings=given)
    assert measured["a"].metrics == {"agreement": 100}


def test_size_refuses_weights_outside_the_folder(tmp_path: Path) -> None:
    import onnx

    file = Path(network.write(tmp_path / "net.onnx"))
    model = onnx.load(file)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ConvkitError, match="outside its folder"):
        model_size(str(file))


def test_the_fingerprint_is_json() -> None:
    facts = fingerprint()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["usable"] >= 1
    assert peak_memory() > 1e7
