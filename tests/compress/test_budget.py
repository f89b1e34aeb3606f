"""Wishes, and what they mean."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convkit.compress import budget
from convkit.compress.budget import parse
from convkit.compress.errors import ConvkitError


@pytest.mark.parametrize(
    ("name", "text", "quantity", "limit", "relative"),
    [
        ("latency", "<=4ms", "seconds", 0.004, False),
        ("latency", " <= 250 us ", "seconds", 250e-6, False),
        ("latency", "1.5s", "seconds", 1.5, False),
        ("latency", "<=0.6x", "seconds", 0.6, True),
        ("size", "<=2MB", "bytes", 2e6, False),
        ("size", "<=2MiB", "bytes", 2.0**21, False),
        ("size", "<= 1.5e3 kB", "bytes", 1.5e6, False),
        ("bops", "<=20G", "bops", 20e9, False),
        ("bops", "0.1x", "bops", 0.1, True),
    ],
)
def test_what_a_budget_means(name: str, text: str, quantity: str, limit: float, relative: bool) -> None:
    found = parse(name, text)
    assert (found.quantity, found.relative) == (quantity, relative)
    assert found.limit == pytest.approx(limit)
    assert found.absolute(8.0) == pytest.approx(8 * limit if relative else limit)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("latency", "<=2MB", "--latency '<=2MB' has unit 'MB'"),
        ("size", "<=2mb", "has unit 'mb'"),
        ("size", "<=2", "has no unit"),
        ("bops", "<=4ms", "has unit 'ms'"),
        ("latency", "<=20%", "has unit '%'"),
        ("latency", ">=4ms", "is no budget"),
        ("latency", "fast", "is no budget"),
        ("latency", "", "is no budget"),
        ("latency", "<=0ms", "leaves nothing"),
        ("latency", "<=-4ms", "leaves nothing"),
        ("latency", "<=1e999s", "beyond all numbers"),
    ],
)
def test_a_bad_budget_is_told_with_what_would_do(name: str, text: str, message: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        parse(name, text)
    assert message in raised.value.message
    assert "\n" not in str(raised.value)
    assert raised.value.hint


NAMES = st.sampled_from(sorted(budget.QUANTITIES))


@given(NAMES, st.text(string.printable, max_size=12))
def test_anything_is_a_budget_or_the_users_error(name: str, text: str) -> None:
    try:
        found = parse(name, text)
    except ConvkitError as error:
        assert error.hint  # noqa: PT017 - either outcome is right
    else:
        assert parse(name, found.text) == found


@given(NAMES, st.floats(1e-9, 1e15))
@example("latency", 0.004)
@example("size", 1e6)
@example("size", 999_999.5)
@example("bops", 1.0)
def test_what_is_named_reachable_is_reached_and_hardly_more(name: str, value: float) -> None:
    found = parse(name, budget.reachable(name, value))
    assert value <= found.limit <= 1.011 * value or found.limit == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("latency", 0.0052301, "<=5.24ms"), ("size", 2.5e6, "<=2.50MB"), ("bops", 20e9, "<=20.0G"),
     ("latency", 0.9996, "<=1000ms"), ("latency", 12e-6, "<=12.0us"), ("size", 123.2, "<=124B")],
)  # fmt: skip
def test_what_is_named_reachable_reads_well(name: str, value: float, text: str) -> None:
    assert budget.reachable(name, value) == text


@given(st.floats(1e-9, 1e15), st.floats(1e-3, 10))
def test_the_nearest_to_a_ratio_is_a_ratio(original: float, part: float) -> None:
    said = budget.nearest(parse("latency", "<=0.5x"), part * original, original)
    found = parse("latency", said)
    assert found.relative
    assert part * original <= found.absolute(original) * (1 + 1e-12)
    assert found.limit <= part + 0.0011
    assert budget.nearest(parse("latency", "<=4ms"), 0.0052301, original) == "<=5.24ms"
