"""The language of gates."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench import gate
from convkit.runtimes.bench.gate import Gate, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p50 <= 0.8x", ("p50", "<=", 0.8, "ratio")),
        ("p90<=1.05x", ("p90", "<=", 1.05, "ratio")),
        ("p50 <= 12ms", ("p50", "<=", 0.012, "absolute")),
        ("p99 <= 800 us", ("p99", "<=", 800e-6, "absolute")),
        ("load <= 2s", ("load", "<=", 2.0, "absolute")),
        ("size <= 2MB", ("size", "<=", 2e6, "absolute")),
        ("size <= 2MiB", ("size", "<=", 2 * 2**20, "absolute")),
        ("memory <= 0.9x", ("memory", "<=", 0.9, "ratio")),
        ("throughput >= 1.2x", ("throughput", ">=", 1.2, "ratio")),
        ("throughput >= 100/s", ("throughput", ">=", 100.0, "absolute")),
        ("top1 >= -0.5", ("top1", ">=", -0.5, "difference")),
        ("top1 >= -0.5pt", ("top1", ">=", -0.5, "difference")),
        ("top1 >= 0", ("top1", ">=", 0.0, "difference")),
        ("psnr >= +0.1dB", ("psnr", ">=", 0.1, "difference")),
        ("top1 >= 83", ("top1", ">=", 83.0, "absolute")),
        ("agreement >= 97 %", ("agreement", ">=", 97.0, "absolute")),
        ("my.metrics:iou >= 0.5", ("my.metrics:iou", ">=", 0.5, "absolute")),
    ],
)
def test_what_a_gate_means(text: str, expected: tuple[str, str, float, str]) -> None:
    found = parse(text)
    assert (found.quantity, found.sense, found.kind) == (expected[0], expected[1], expected[3])
    assert found.limit == pytest.approx(expected[2])


@pytest.mark.parametrize(
    "text",
    ["", "p50", "p50 < 0.8x", "p50 <= 0.8", "p50 <= fast", "p50 <= -1x", "p50 <= 2MB", "size <= 2ms", "size <= 2",
     "throughput >= 3ms", "top1 >= 3ms", "p50 <= 0.8x and p90 <= 1x", "<= 3x", "p50 <= 1e999ms x"],
)  # fmt: skip
def test_a_bad_gate_is_told_with_examples(text: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        parse(text)
    assert "x" in raised.value.hint


@st.composite
def gates(draw: st.DrawFn) -> str:
    quantity = draw(st.sampled_from(gate.MEASURED))
    number = draw(st.floats(0, 1e6).map(lambda value: f"{value:.6g}"))
    unit = draw(st.sampled_from(["x", *gate._UNITS[quantity]]))
    space = draw(st.sampled_from(["", " ", "  "]))
    return f"{quantity}{space}{draw(st.sampled_from(['<=', '>=']))}{space}{number}{unit}"


@given(gates())
def test_a_gate_reads_back_from_its_own_text(text: str) -> None:
    found = parse(text)
    assert isinstance(found, Gate)
    assert parse(found.text) == found
    assert found.kind == ("ratio" if text.endswith("x") else "absolute")


@given(gates(), st.text(string.printable, max_size=12))
def test_anything_else_is_a_gate_or_the_users_error(text: str, noise: str) -> None:
    for changed in (noise, text + noise, noise + text, text[: len(noise)]):
        try:
            parse(changed)
        except ConvkitError as error:
            assert error.hint  # noqa: PT017 - either outcome is right
