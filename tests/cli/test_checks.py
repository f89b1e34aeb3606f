"""What `convkit verify` prints of hundreds of checks: the misses, the worst, and each limit in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.cli import checks
from convkit.runtimes.parity.checks import Check
from convkit.runtimes.parity.compare import Comparison


def layer(number: int, equal: float, engine: str = "onnxruntime") -> Check:
    return Check(engine, f"t{number}", f"conv{number}", "codes", equal, 0.999, "codes", equal >= 0.999)


def comparison(*found: Check) -> Comparison:
    missed = {c.engine: next((o.layer for o in found if o.engine == c.engine and not o.passed), None) for c in found}
    return Comparison(found, missed, 4, {})


def printed(capsys: pytest.CaptureFixture[str], found: Comparison) -> str:
    checks.table(found)
    return " ".join(capsys.readouterr().out.split())


def test_of_many_layers_the_worst_and_the_first_that_departs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve depart; conv3, the first, by least."""
    found = [layer(i, {3: 0.9989}.get(i, 0.5 + i / 100 if i % 3 == 0 and i < 36 else 1.0)) for i in range(3, 43)]
    out = printed(capsys, comparison(*found))
    assert "conv3: t3 onnxruntime codes 0.9989 equal ≥ 0.999 equal FAIL" in out
    assert "conv6: t6 onnxruntime codes 0.56 equal ≥ 0.999 equal FAIL" in out
    assert "the 11 worst of 40 checks of layers; --json has all" in out
    assert "onnxruntime: conv3 is the first layer that departs; 29 of 40 layers within limits" in out
    assert "conv7" not in out


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["onnxruntime", "openvino"])), min_size=1, max_size=60))
def test_no_hidden_check_is_worse_than_a_shown_one(drawn: list[tuple[float, str]]) -> None:
    found = [layer(i, equal, engine) for i, (equal, engine) in enumerate(drawn)]
    shown = checks._worst(found)
    assert shown == [check for check in found if check in shown]
    hidden = [check.value for check in found if check not in shown]
    assert not hidden or min(hidden) >= sorted(check.value for check in shown)[9]
    for engine in ("onnxruntime", "openvino"):
        missed = [check for check in found if check.engine == engine and not check.passed]
        assert missed[:1] == [check for check in missed[:1] if check in shown]


def test_every_limit_says_its_direction_its_unit_and_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    output = Check("onnxruntime", "scores", "", "sqnr", 35.0, 20.0, "sqnr", passed=True)
    float_codes = Check("onnxruntime", "c", "conv", "sqnr", 18.0, 20.0, "sqnr", passed=False)
    rounded = Check("openvino", "scores", "", "sqnr", 35.0, 20.0, "loss", passed=True)
    exact = Check("eager", "scores", "", "relative", 2e-6, 1e-4, "relative", passed=True)
    metric = Check("openvino", "top1", "", "metric", 0.5, 0.2, "metric", passed=False)
    told = Check("openvino", "agreement", "", "metric", 97.5, None, "metric", passed=True)
    out = printed(capsys, comparison(output, float_codes, rounded, exact, metric, told))
    assert "scores onnxruntime sqnr 35 dB ≥ 20 dB pass" in out
    assert "scores eager relative 2e-06 ≤ 0.0001 pass" in out
    assert "top1 openvino metric 0.5 % ≤ 0.2 % FAIL" in out
    assert "agreement openvino metric 97.5 % – –" in out
    assert "conv: c onnxruntime sqnr 18 dB ≥ 20 dB FAIL" in out
    assert "scores openvino sqnr 35 dB loss ≥ 20 dB pass" in out


def test_a_miss_names_the_limit_that_was_missed() -> None:
    found = comparison(Check("openvino", "scores", "", "sqnr", 8.0, 10.0, "loss", passed=False))
    words = "1 of 1 checks failed; the first: openvino, scores: sqnr is 8 dB, the limit is loss ≥ 10 dB"
    assert checks.miss(found) == words
