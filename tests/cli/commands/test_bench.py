"""`convkit bench`: what it prints and writes, and its exit codes."""

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.gate import parse
from convkit.runtimes.bench.measure import Measurement, Result, Settings
from convkit.runtimes.bench.verdict import Verdict, judge
from tests.command_line import Convkit
from tests.runtimes import network

QUICK = ("--budget", "0.3")
PAIR = ("null:1ms", "null:2ms", *QUICK)
KEYS = ("p10", "p50", "p90", "p99", "mean")


def result(name: str, ratio: Interval, **changes: object) -> Result:
    """Figures as a run would give them, at 10 ms for a ratio of one."""
    seconds = {key: Interval(ratio.value / 100, ratio.low / 100, ratio.high / 100) for key in KEYS}
    plain = Result(
        name=name, engine="onnxruntime", model=f"{name}.onnx", digest="ab", seconds=seconds,
        ratios=dict.fromkeys(KEYS, ratio), throughput=100 / ratio.value, calls=400, steady=1.0, load_seconds=0.25,
        memory=80_000_000, size=4_000_000, metrics={"top1": 80.0, "agreement": 100.0},
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def measurement(name: str = "small", ratio: Interval | None = None, **changes: object) -> Measurement:
    """A baseline and one candidate that takes 0.6 of its time."""
    machine = {"cpu": "a cpu", "usable": 2, "flags": ["avx2"], "load": 0.5, "engines": {"onnxruntime": "1.0"}}
    base = result("float", Interval(1, 1, 1))
    metrics = {"top1": 79.4, "agreement": 96.0}
    changes = {"memory": 60_000_000, "size": 1_000_000, "metrics": metrics, **changes}
    other = result(name, ratio or Interval(0.6, 0.58, 0.62), **changes)
    return Measurement("float", (base, other), 40, 1, None, Settings(), machine, ("it was noisy",))


GATES = (
    "p50 <= 0.8x", "p50 <= 0.5x", "p50 <= 0.6x", "p50 <= 7ms", "throughput >= 1.5x", "throughput >= 200/s",
    "size <= 0.25x", "size <= 500kB", "memory <= 0.9x", "load <= 1s", "top1 >= -1", "top1 >= -0.5", "top1 >= 79",
    "agreement >= 97",
)  # fmt: skip
STATES = ("pass", "fail", "undecided", "pass", "pass", "fail", "pass", "fail", "pass", "pass", "pass", "fail", "pass",
          "fail")  # fmt: skip


def test_a_gate_fails_only_when_the_interval_excludes_the_limit() -> None:
    verdict = judge(measurement(), [parse(text) for text in GATES])
    assert tuple(judgement.state for judgement in verdict.judgements) == STATES
    undecided = [parse("p50 <= 0.6x")]
    assert not judge(measurement(), undecided).failed
    assert judge(measurement(), undecided, strict=True).failed


@pytest.mark.parametrize(
    ("base", "own", "text", "state"),
    [
        (34.6, 34.4, "psnr >= -0.5", "pass"),
        (34.6, 33.9, "psnr >= -0.5", "fail"),
        (34.6, 33.9, "psnr >= 30", "pass"),
        (200.0, 33.9, "psnr >= 30", "pass"),
    ],
)
def test_what_is_lost_of_psnr_against_targets(base: float, own: float, text: str, state: str) -> None:
    """Without targets the baseline is scored against itself, which is no score to lose of."""
    float_, other = measurement().results
    results = (dataclasses.replace(float_, metrics={"psnr": base}), dataclasses.replace(other, metrics={"psnr": own}))
    found = dataclasses.replace(measurement(), results=results)
    assert judge(found, [parse(text)]).judgements[0].state == state


@pytest.mark.parametrize("text", ["agreement >= -3", "agreement >= 0", "psnr >= -0.5"])
def test_what_is_a_difference_by_itself_is_asked_for_no_other(text: str) -> None:
    """The number itself is never below such a limit: the gate would hold for any candidate."""
    metrics = {"agreement": 100.0, "psnr": 200.0}
    results = tuple(dataclasses.replace(one, metrics=metrics) for one in measurement().results)
    with pytest.raises(ConvkitError, match="is one to the baseline by itself"):
        judge(dataclasses.replace(measurement(), results=results), [parse(text)])


@pytest.mark.parametrize(
    ("gate", "calls", "state"),
    [
        ("p99 <= 7ms", 367, "undecided"),
        ("p99 <= 7ms", 368, "pass"),
        ("p90 <= 0.8x", 35, "undecided"),
        ("p90 <= 0.8x", 36, "pass"),
        ("p99 <= 5ms", 6, "fail"),
        ("p50 <= 7ms", 6, "pass"),
    ],
)
def test_a_few_calls_say_nothing_of_the_slowest(gate: str, calls: int, state: str) -> None:
    assert judge(measurement(calls=calls), [parse(gate)]).judgements[0].state == state


@given(st.floats(0.5, 2), st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.4, 2.5))
def test_opposite_gates_never_both_fail(value: float, below: float, above: float, limit: float) -> None:
    interval = Interval(value, value - below, value + above)
    found = measurement(ratio=interval)
    least, most = (judge(found, [parse(f"p50 {sense} {limit:.6f}x")]).judgements[0] for sense in (">=", "<="))
    assert not (least.state == "fail" and most.state == "fail")
    assert (least.state == "fail") <= (most.state == "pass")
    assert (least.state == "undecided") == (most.state == "undecided") or "pass" in (least.state, most.state)


def written(name: str, found: Measurement | None = None, gates: tuple[str, ...] = GATES) -> str:
    """What a report says of a run."""
    found = found or measurement()
    text = parts.load("cli/reports", name).write(found, judge(found, [parse(gate) for gate in gates]))
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("name", parts.names("cli/reports"))
def test_reports_are_golden(name: str, golden: object) -> None:
    golden(f"bench-{name}", written(name))  # type: ignore[operator]


@given(st.text(max_size=20))
def test_junit_is_xml_whatever_a_model_is_called(name: str) -> None:
    root = ET.fromstring(written("junit", measurement(name=f"x{name}")))
    (suite,) = root
    cases = suite.findall("testcase")
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert int(suite.get("tests", "")) == len(cases) == len(GATES)
    assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure")) == STATES.count("fail")
    assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped")) == STATES.count("undecided")
    assert all(case.get("classname") and case.get("name") for case in cases)


def test_custom_smaller_is_better_has_its_fields() -> None:
    entries = json.loads(written("custom_smaller_is_better"))
    for entry in entries:
        assert set(entry) == {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], float)
    assert len({entry["name"] for entry in entries}) == len(entries)


def test_json_has_a_schema_version_and_every_figure() -> None:
    found = json.loads(written("json"))
    assert found["schema_version"] == 1
    assert found["baseline"] == "float"
    assert not found["passed"]
    assert {gate["state"] for gate in found["gates"]} == {"pass", "fail", "undecided"}
    for candidate in found["candidates"]:
        assert set(candidate) >= {"name", "engine", "digest", "throughput", "memory", "size", "load_seconds", "metrics"}
        for key in KEYS:
            assert set(candidate["seconds"][key]) == set(candidate["ratios"][key]) == {"value", "low", "high"}


def test_exit_0_when_gates_hold(convkit: Convkit) -> None:
    done = convkit("bench", *PAIR, "--gate", "p50 <= 3x", "--gate", "p50 <= 50ms", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["passed"]
    assert [candidate["name"] for candidate in found["candidates"]] == ["null:1ms", "null:2ms"]


def test_exit_1_when_a_gate_fails(convkit: Convkit, tmp_path: Path) -> None:
    junit, list_file = tmp_path / "junit.xml", tmp_path / "figures.json"
    files = ("--junit", str(junit), "--custom-smaller-is-better", str(list_file))
    # So far apart that no load of the machine leaves it undecided.
    done = convkit("bench", "null:1ms", "null:20ms", "--budget", "1", "--gate", "p50 <= 1.03x", *files)
    assert "error: 1 of 1 gates failed; the first: null:20ms, p50 <= 1.03x: measured" in done.err
    assert done.code == 1
    assert "fail" in done.out
    assert ET.parse(junit).getroot().get("failures") == "1"
    assert json.loads(list_file.read_text())


def test_the_baseline_may_be_any_of_them(convkit: Convkit) -> None:
    done = convkit("bench", *PAIR, "--baseline", "null:2ms", "--gate", "p50 <= 0.9x", "--json")
    assert done.code == 0
    assert json.loads(done.out)["baseline"] == "null:2ms"


def test_one_candidate_needs_no_baseline(convkit: Convkit) -> None:
    done = convkit("bench", "null:1ms", *QUICK, "--gate", "p50 <= 1s", "--markdown")
    assert done.code == 0
    assert done.out.startswith("| candidate |")


def test_the_same_model_twice_is_a_pair(convkit: Convkit) -> None:
    done = convkit("bench", "null:1ms", "null:1ms", *QUICK, "--json")
    assert [candidate["name"] for candidate in json.loads(done.out)["candidates"]] == ["null:1ms", "null:1ms #2"]


def test_data_and_metrics(convkit: Convkit, tmp_path: Path) -> None:
    net = network.write(tmp_path / "net.onnx", batch="N")
    random = np.random.default_rng(0)
    images = random.standard_normal((12, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images, labels=random.integers(10, size=12))
    words = ("bench", f"onnxruntime:{net}", f"openvino:{net}", "--data", str(tmp_path / "data.npz"), *QUICK)
    done = convkit(*words, "--batch", "5", "--gate", "top1 >= 0", "--gate", "agreement >= 100", "--json")
    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert found["batch"] == 5
    assert found["data"]
    assert [gate["state"] for gate in found["gates"]] == ["pass", "pass"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("null:1ms", "--gate", "p50 < 3"), "no gate"),
        (("null:1ms", "--gate", "p50 <= 0.8x"), "baseline"),
        (("null:1ms", "null:2ms", "--gate", "top1 >= -0.5"), "--data"),
        (("null:1ms", "--gate", "top1 >= -0.5"), "baseline"),
        (("null:1ms", "--gate", "topp1 >= -0.5"), "top1"),
        (("null:1ms", "null:2ms", "--gate", "agreement >= -3", "--data", "none.npz"), "without a sign"),
        (("null:1ms", "null:2ms", "--gate", "size <= 2MB"), "no file"),
        (("null:1ms", "--json", "--markdown"), "choose one"),
        (("null:1ms", "--junit", "/nowhere/at/all.xml"), "/nowhere/at/all.xml"),
        (("null:1ms", "--junit", ""), "'--junit': it is empty"),
        (("null:1ms", "--custom-smaller-is-better", ""), "'--custom-smaller-is-better': it is empty"),
        (("null:later", "--junit", "."), ". is a folder; name a file in it"),
        (("null:later",), "null:10ms"),
        (("onnxruntime:nowhere.onnx",), "nowhere.onnx"),
        (("nowhere.onnx",), "--engine"),
        (("null:1ms", "--shape", "x:1x2"), "no input 'x'"),
    ],
)
def test_exit_2_for_wrong_input(convkit: Convkit, words: tuple[str, ...], said: str) -> None:
    done = convkit("bench", *words, *QUICK)
    assert done.code == 2
    assert said in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: ")
    assert not done.out


def test_exit_3_where_the_engine_is_missing(convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = convkit("bench", f"openvino:{network.write(tmp_path / 'net.onnx')}", *QUICK)
    assert done.code == 3
    assert "pip install" in done.err


def test_a_verdict_without_gates_is_good() -> None:
    assert not Verdict(()).failed
