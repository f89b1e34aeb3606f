"""Pictures: the same search gives the same bytes, every network and layer is in them, one point is enough."""

import hashlib
from xml.etree import ElementTree as ET

import pytest

from convkit.cli import picture
from convkit.cli.picture import Bar, Point

POINTS = [
    Point("original", 1.0, 60.0, "original"),
    Point("all int8", 0.45, 21.0, "peer"),
    Point("a", 0.5, 25.0, "predicted"),
    Point("b", 0.6, 30.0, "predicted"),
    Point("mixed", 0.52, 26.0, "measured"),
    Point("chosen", 0.5, 27.0, "kept"),
]
BARS = [Bar(f"layer{i}", "int8/uint8" if i % 3 else "fp32", 10.0**-i, 1e-5 * i) for i in range(1, 12)]


def digest(drawn: dict[str, bytes]) -> list[str]:
    return [hashlib.sha256(drawn[suffix]).hexdigest() for suffix in sorted(drawn)]


def test_the_same_search_gives_the_same_bytes() -> None:
    assert digest(picture.front(POINTS, "SQNR (dB)")) == digest(picture.front(POINTS, "SQNR (dB)"))
    assert digest(picture.depth(BARS)) == digest(picture.depth(BARS))


def words(svg: bytes) -> str:
    return " ".join(ET.fromstring(svg).itertext())


def test_every_measured_network_is_named() -> None:
    shown = words(picture.front(POINTS, "SQNR (dB)")["svg"])
    assert all(p.name in shown for p in POINTS if p.kind != "predicted")
    assert "SQNR (dB)" in shown


def test_every_layer_and_option_is_named() -> None:
    drawn = picture.depth(BARS)
    shown = words(drawn["svg"])
    assert all(bar.name in shown for bar in BARS)
    assert "int8/uint8" in shown
    assert drawn["png"].startswith(b"\x89PNG")


def test_the_terminal_shows_each_kind_once_where_it_lies() -> None:
    lines = picture.terminal(POINTS, width=40, height=10).splitlines()
    assert lines[0].rstrip().endswith("D")
    assert "s" in lines[9]
    assert sum(line.count("*") for line in lines) == 1
    assert all(len(line) <= 50 for line in lines)


@pytest.mark.parametrize("points", [POINTS[:1], [POINTS[0], POINTS[0]]])
def test_one_point_is_a_picture_too(points: list[Point]) -> None:
    assert "D" in picture.terminal(points)
    assert picture.front(points, "top1")["svg"]


def test_layers_without_loss_are_a_picture_too() -> None:
    assert picture.depth([Bar("only", "fp32", 0.0, 0.0)])["png"]
