"""Engines on a GPU: the numbers are those of the CPU, whatever the knobs; times are the GPU's own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.export.tensorrt import asserted, package
from convkit.export.tensorrt.request import Settings
from convkit.runtimes._tensorrt import TensorRtSession
from convkit.runtimes.bench import machine
from convkit.runtimes.session import OnDevice, Options, open_session
from tests import here
from tests.command_line import Convkit
from tests.compress.network import Net
from tests.runtimes import network

ON_GPU = ("eager_cuda", "onnxruntime_cuda", "tensorrt", "tensorrt_rtx")
CLOSE = {"f32": 1e-5, "tf32": 3e-3, "bf16": 3e-2, "f16": 4e-3}
"""Largest difference of a score, over the largest score."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return network.write(tmp_path_factory.mktemp("net") / "net.onnx")


def far(ours: dict[str, np.ndarray], net: str, inputs: dict[str, np.ndarray]) -> float:
    reference = open_session("eager", net).run(inputs)["scores"]
    return float(np.abs(ours["scores"] - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize("engine", [name for name in ON_GPU if name not in here.engines()])
def test_an_engine_that_is_not_at_hand_is_exit_3(convkit: Convkit, engine: str, net: str) -> None:
    result = convkit("bench", f"{engine}:{net}", "--budget", "1")
    assert result.code == 3
    assert result.err.splitlines()[-1].startswith("error: ")
    with pytest.raises(NotAvailableError) as raised:
        parts.load("runtimes", engine).version()
    assert raised.value.hint


def test_a_machine_says_which_gpu_it_has() -> None:
    found = machine.fingerprint()["gpu"]
    assert found is None or {"name", "driver", "memory", "largest_clock"} == set(found)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("knobs", [{}, {"graphs": True}, {"channels_last": True, "graphs": True}])
def test_eager_cuda_computes_what_the_cpu_does(precision: str, knobs: dict[str, bool], net: str) -> None:
    session = open_session("eager_cuda", net, Options(precision=precision, **knobs))
    for seed in range(3):
        inputs = network.sample(seed=seed)
        assert far(session.run(inputs), net, inputs) <= CLOSE[precision]


@pytest.mark.gpu
def test_compiled_kernels_keep_the_numbers(net: str) -> None:
    inputs = network.sample()
    for graphs in (False, True):
        session = open_session("eager_cuda", net, Options(compile=True, graphs=graphs))
        assert far(session.run(inputs), net, inputs) <= CLOSE["f32"]


@pytest.mark.gpu
def test_another_shape_is_another_graph(tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx", batch="N")
    session = open_session("eager_cuda", net, Options(graphs=True))
    for batch in (1, 3, 1):
        inputs = network.sample(batch=batch)
        assert far(session.run(inputs), net, inputs) <= CLOSE["f32"]


@pytest.mark.gpu
@pytest.mark.parametrize("engine", [name for name in ON_GPU if name in here.engines()])
def test_a_call_is_timed_by_the_gpu(engine: str, net: str) -> None:
    session = open_session(engine, net)
    assert isinstance(session, OnDevice)
    seconds = [session.timed(network.sample()) for _ in range(20)]
    assert all(0 < each < 1 for each in seconds)
    reading = session.reading()
    assert reading is None or (reading.clock > 0 and 0 < reading.temperature < 120)


@pytest.mark.gpu
def test_times_grow_with_the_work(tmp_path: Path) -> None:
    """64 times the positions of a large picture: a clock that only saw the launch would see no difference."""
    medians = []
    for size in (256, 2048):
        net = network.write(tmp_path / f"{size}.onnx", size=size)
        inputs = {"x": np.ones((1, 3, size, size), np.float32)}
        session = open_session("eager_cuda", net, Options(graphs=True))
        medians.append(np.median([session.timed(inputs) for _ in range(20)]))
    assert medians[1] > 2 * medians[0]


@pytest.mark.gpu
def test_a_bench_tells_what_the_gpu_was_like(convkit: Convkit, net: str) -> None:
    words = (f"eager_cuda:{net}", f"eager_cuda,graphs=on:{net}", "--budget", "4", "--json")
    result = convkit("bench", *words)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    for candidate in report["candidates"]:
        assert candidate["gpu"]["clock"][1] > 0
    assert report["machine"]["gpu"]["name"]
    assert report["candidates"][1]["ratios"]["p50"]["high"] < 1


@pytest.mark.gpu
def test_verify_goes_layer_by_layer(convkit: Convkit, net: str) -> None:
    result = convkit("verify", net, "--engines", "eager_cuda", "--layers")
    assert result.code == 0, result.err


@pytest.mark.gpu
@pytest.mark.parametrize("engine", [name for name in package.PACKAGES if name in here.engines()])
def test_inner_tensors_are_built_once(engine: str, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As outputs of an engine of their own, which takes seconds to build and every batch to run."""
    built, build = list[str](), asserted.build_and_assert
    session = open_session(engine, net)

    def counted(name: str, path: Path, settings: Settings) -> asserted.Asserted:
        built.append(name)
        return build(name, path, settings)

    monkeypatch.setattr(asserted, "build_and_assert", counted)
    for seed in (1, 2):
        inputs = network.sample(seed=seed)
        wanted = open_session("eager", net).run(inputs, ["sum"])["sum"]
        np.testing.assert_allclose(session.run(inputs, ["sum"])["sum"], wanted, rtol=1e-3, atol=1e-3)
    assert built == [engine]


@pytest.mark.gpu
@pytest.mark.skipif("tensorrt" not in here.engines(), reason="TensorRT for RTX has no operator of that kind")
def test_an_output_whose_size_the_numbers_decide_is_one_line(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    file = net.save(tmp_path / "net.onnx", net.op("Cast", net.op("NonZero", "x"), name="y", to=1))
    session = open_session("tensorrt", file)
    with pytest.raises(ConvkitError, match="size of output 'y' is known only once it was made"):
        session.run({"x": np.ones((1, 3, 8, 8), np.float32)})


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name, known in package.PACKAGES.items() if known.sms])
def test_an_engine_that_this_gpu_cannot_run_is_one_line(convkit: Convkit, name: str, net: str, tmp_path: Path) -> None:
    """Built for another compute capability, cut short, or nothing of the kind."""
    pytest.importorskip(name)
    from convkit.runtimes.session import cuda

    known = package.PACKAGES[name]
    other = next(sm for sm in reversed(known.sms) if sm != cuda.capability())
    built = convkit("export", net, "--target", known.extra, "--sm", str(other), "-o", str(tmp_path / "out"))
    assert built.code == 0, built.err
    engine = (tmp_path / "out" / "engine.trt").read_bytes()
    for content in (engine, engine[: len(engine) // 2], b"no engine"):
        file = tmp_path / "engine.trt"
        file.write_bytes(content)
        with pytest.raises(ConvkitError, match=r"refuses .*engine\.trt: ") as raised:
            TensorRtSession(name, str(file), Options())
        assert "\n" not in raised.value.message
    shutil.rmtree(tmp_path / "out")
