"""A table in a narrow terminal: all of it can be read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.cli import figures, layout, show
from tests.cli.commands.test_bench import measurement

WORDS = st.text("abc._", min_size=1, max_size=40)
NUMBERS = st.integers(0, 10**9).map(str)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], list[bool]]:
    numbers = [False, *draw(st.lists(st.booleans(), min_size=1, max_size=9))]
    rows = draw(st.lists(st.tuples(*(NUMBERS if number else WORDS for number in numbers)), min_size=1, max_size=4))
    return [f"column {i}" for i in range(len(numbers))], [list(row) for row in rows], numbers


@given(tables(), st.integers(60, 200))
def test_every_column_is_shown_wide_enough_and_no_block_is_too_wide(
    table: tuple[list[str], list[list[str]], list[bool]], room: int
) -> None:
    columns, rows, numbers = table
    figures = [max(len(row[i]) for row in rows) if number else 0 for i, number in enumerate(numbers)]
    found = layout.blocks(columns, rows, figures, room)
    assert sorted({i for block in found for i in block.columns}) == list(range(len(columns)))
    assert all(block.columns[0] == 0 for block in found)
    for block in found:
        assert sum(block.widths) + 2 * (len(block.widths) - 1) <= room
        for index, width in zip(block.columns, block.widths, strict=False):
            longest = max(len(row[index]) for row in rows)
            assert width >= longest if numbers[index] else width >= min(longest, 16)


def test_a_table_that_has_room_is_left_as_it_is() -> None:
    assert layout.blocks(["a", "b"], [["c", "1"]], [0, 1], 80) == [layout.Block((0, 1))]


def test_the_figures_of_a_bench_can_be_read_on_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    columns, rows = figures.candidates(measurement("onnxruntime:out/resnet50/int8/model.onnx"))
    show.table(columns, rows)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        for cell in row[1:]:
            assert any(re.search(rf"(^| ){re.escape(cell)}( |$)", line) for line in lines), cell
