"""Knobs are data of each engine: what it says it has, it takes, and a plan or a command line can say them all."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import Plan
from convkit.runtimes.bench.candidate import parse
from convkit.runtimes.bench.measure import Settings, measure
from convkit.runtimes.session import Options, Runtime, knobs, open_session
from tests import here
from tests.runtimes import network

ENGINES = parts.names("runtimes")
FIELDS = {field.name for field in dataclasses.fields(Options)}


def runtime(engine: str) -> Runtime:
    found: Runtime = parts.load("runtimes", engine)
    return found


LISTED = [(engine, knob) for engine in ENGINES for knob in runtime(engine).knobs]
HERE = ("null", *here.engines())
WORTH = [(engine, knob.name, value) for engine, knob in LISTED if engine in HERE for value in knob.tried]


@pytest.mark.parametrize(("engine", "knob"), LISTED, ids=lambda each: getattr(each, "name", each))
def test_a_knob_is_an_option_and_what_is_tried_is_one_of_its_values(engine: str, knob: knobs.Knob) -> None:
    assert knob.name in FIELDS
    assert set(knob.tried) <= set(knob.values)
    for value in knob.values:
        turned = knobs.turned(Options(), engine, {knob.name: value})
        word = knobs.in_words({knob.name: value})
        assert getattr(turned, knob.name) == value
        assert knobs.parse(word, engine, Options()) == (knob.name, value)
        assert parse(f"{engine},{word}:a", None, Options()).options == turned


@pytest.mark.parametrize(("engine", "name", "value"), WORTH)
def test_what_is_tried_keeps_the_numbers(engine: str, name: str, value: knobs.Value, tmp_path: Path) -> None:
    net = "1us" if engine == "null" else network.write(tmp_path / "net.onnx")
    inputs = {"input": np.zeros(1, np.float32)} if engine == "null" else network.sample()
    (plain,) = open_session(engine, net).run(inputs).values()
    (turned,) = open_session(engine, net, knobs.turned(Options(), engine, {name: value})).run(inputs).values()
    np.testing.assert_allclose(turned, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("engine", "given", "words"),
    [
        ("onnxruntime", {"precision": "bf16"}, "onnxruntime has no knob 'precision'"),
        ("openvino", {"precison": "bf16"}, "did you mean 'precision'"),
        ("openvino", {"precision": "int3"}, "precision is 'int3'"),
        ("openvino", {"precision": "tf32"}, "precision=f32|bf16|f16"),
        ("onnxruntime_cuda", {"precision": "bf16"}, "precision=f32|tf32"),
        ("onnxruntime", {"spinning": "off"}, "spinning=on|off"),
        ("onnxruntime", {"spinning": 0}, "spinning is 0"),
        ("onnxruntime", {"threads": True}, "threads=N"),
        ("onnxruntime", {"threads": 0}, "threads is 0"),
        ("eager", {"weights": 3}, "weights=FILE"),
        ("null", {"shapes": "1"}, "its knobs: threads, spinning"),
    ],
)
def test_what_an_engine_cannot_be_told(engine: str, given: knobs.Knobs, words: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        knobs.turned(Options(), engine, given)
    assert words in str(raised.value)


def test_what_differs_is_what_a_plan_says() -> None:
    options = Options(threads=1, spinning=False, shapes={"x": (1,)})
    said = knobs.differing(options, Options())
    assert said == {"threads": 1, "spinning": False}
    assert knobs.in_words(said) == "threads=1, spinning=off"
    assert knobs.turned(Options(shapes={"x": (1,)}), "onnxruntime", said) == options


def test_a_candidate_takes_the_knobs_of_a_plan(tmp_path: Path) -> None:
    plan = Plan("00" * 32, "onnxruntime-cpu", engine={"spinning": False, "threads": 1})
    (tmp_path / "plan.yaml").write_text(plans.dump(plan))
    found = parse(f"onnxruntime,plan={tmp_path}/plan.yaml:net.onnx", None, Options(threads=4))
    assert found.options == Options(threads=1, spinning=False)
    later = parse(f"onnxruntime,plan={tmp_path}/plan.yaml,threads=3:net.onnx", None, Options())
    assert later.options.threads == 3
    with pytest.raises(ConvkitError, match="openvino has no knob 'spinning'"):
        parse(f"openvino,plan={tmp_path}/plan.yaml:net.onnx", None, Options())
    with pytest.raises(ConvkitError, match="cannot read plan"):
        parse("onnxruntime,plan=nowhere.yaml:net.onnx", None, Options())


def test_a_device_that_lacks_a_precision_computes_in_float32(tmp_path: Path) -> None:
    net, inputs = network.write(tmp_path / "net.onnx"), network.sample()
    plain = open_session("openvino", net).run(inputs)["scores"]
    precisions = runtime("openvino").precisions()
    assert precisions[0] == "f32"
    for name in ("bf16", "f16"):
        found = open_session("openvino", net, Options(precision=name)).run(inputs)["scores"]
        assert bool((found != plain).any()) == (name in precisions)
    assert runtime("onnxruntime").precisions() == ("f32",)


def test_a_bench_tells_of_a_precision_that_was_left_out(tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx")
    candidates = [parse(f"openvino,precision={name}:{net}", None, Options(threads=1)) for name in ("f32", "bf16")]
    found = measure(candidates, settings=Settings(budget=0.1))
    told = [words for words in found.warnings if "has no bf16 on this device and ran it in f32" in words]
    assert bool(told) == ("bf16" not in runtime("openvino").precisions())
    assert not [words for words in found.warnings if "has no f32" in words]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_help_of_the_bench_lists_the_knobs_with_their_values(engine: str) -> None:
    from convkit.cli.commands.bench import bench

    lines = str(bench.help).splitlines()
    (told,) = (line for line in lines if line.strip().startswith(f"{engine}:"))
    known = [knobs.about(knob, Options()).split(":")[0] for knob in runtime(engine).knobs if knob != knobs.THREADS]
    assert told.split(":")[1].split() == known
