"""Pictures in characters: each network where it lies, each layer once, and 80 columns are enough."""

import pytest

from convkit.cli import characters
from convkit.cli.picture import Bar, Point

POINTS = [
    Point("original", 1.0, 60.0, "original"),
    Point("all int8", 0.45, 21.0, "peer"),
    Point("a", 0.5, 25.0, "predicted"),
    Point("mixed", 0.52, 26.0, "measured"),
    Point("chosen", 0.5, 27.0, "kept"),
]


def test_each_kind_stands_once_where_it_lies() -> None:
    lines = characters.front(POINTS, width=40, height=10).splitlines()
    assert lines[0].rstrip().endswith("D")
    assert "s" in lines[9]
    assert sum(line.count("*") for line in lines) == 1
    assert all(len(line) <= 50 for line in lines)
    assert all(len(line) <= 80 for line in characters.front(POINTS).splitlines())


def test_what_is_better_is_above() -> None:
    points = [Point("", 0.5, 0.02, "measured"), Point("", 0.6, -0.001, "kept")]
    up, down = (characters.front(points, 20, 5, better=better).splitlines() for better in ("higher", "lower"))
    assert ("o" in up[0], "*" in up[4]) == (True, True)
    assert ("*" in down[0], "o" in down[4]) == (True, True)
    assert (down[0].split("│")[0].strip(), down[4].split("│")[0].strip()) == ("-0.001", "0.02")


def test_a_gain_is_no_loss() -> None:
    bars = [Bar("a", "int8/uint8", -1e-3, 1e-5), Bar("b", "int8/uint8", 1e-3, 1e-5)]
    assert characters.layers(bars).splitlines()[1] == "    loss │ █"
    assert characters.layers(bars[:1]).splitlines()[1].strip() == "loss │"


@pytest.mark.parametrize("points", [POINTS[:1], [POINTS[0], POINTS[0]]])
def test_one_point_is_a_picture_too(points: list[Point]) -> None:
    assert "D" in characters.front(points)


def test_layers_are_a_character_each() -> None:
    bars = [Bar("a", "fp32", 0.0, 4e-5), Bar("b", "int8/uint8", 1e-6, 1e-5), Bar("c", "int4/uint8", 1e-3, 2e-5)]
    assert characters.layers(bars).splitlines() == [
        " formats │.84",
        "    loss │ ▃█",
        "    time │█▃▅",
        "layers: . fp32 (1), 8 int8/uint8 (1), 4 int4/uint8 (1)",
    ]


def test_formats_that_look_alike_get_letters_of_their_own() -> None:
    bars = [Bar(name, name, 1e-3, 1e-5) for name in ("int8/uint8", "fp8_e4m3", "fp8_e5m2", "e4m3", "bf16", "int8")]
    formats = characters.layers(bars).splitlines()[0].partition("│")[2]
    assert len(set(formats)) == len(bars)


def test_a_deep_network_comes_in_rows_of_80_columns() -> None:
    lines = characters.layers(
        [Bar(f"layer{i}", f"e{i % 5 + 1}m{i % 4 + 1}", 1e-3, 1e-5) for i in range(150)]
    ).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line[9:10] for line in lines[:9]] == ["│"] * 9
    assert sum(len(line.partition("│")[2]) for line in lines[0:9:3]) == 150


def test_a_network_without_layers_is_a_picture_too() -> None:
    assert characters.layers([]) == "layers: none"
