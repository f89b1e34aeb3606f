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
LOSS = "loss alone (noise / signal)"
BARS = [Bar(f"layer{i}", "int8/uint8" if i % 3 else "fp32", 10.0**-i, 1e-5 * i) for i in range(1, 12)]


def digest(drawn: dict[str, bytes]) -> list[str]:
    return [hashlib.sha256(drawn[suffix]).hexdigest() for suffix in sorted(drawn)]


def test_the_same_search_gives_the_same_bytes() -> None:
    assert digest(picture.front(POINTS, "SQNR (dB)")) == digest(picture.front(POINTS, "SQNR (dB)"))
    assert digest(picture.depth(BARS, LOSS)) == digest(picture.depth(BARS, LOSS))


def words(svg: bytes) -> str:
    return " ".join(ET.fromstring(svg).itertext())


def test_every_measured_network_is_named() -> None:
    shown = words(picture.front(POINTS, "SQNR (dB)")["svg"])
    assert all(p.name in shown for p in POINTS if p.kind != "predicted")
    assert "SQNR (dB)" in shown


def test_every_layer_and_option_is_named() -> None:
    drawn = picture.depth(BARS, LOSS)
    shown = words(drawn["svg"])
    assert all(bar.name in shown for bar in BARS)
    assert "int8/uint8" in shown
    assert drawn["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("points", [POINTS[:1], [POINTS[0], POINTS[0]]])
def test_one_point_is_a_picture_too(points: list[Point]) -> None:
    assert picture.front(points, "top1")["svg"]


def test_what_is_better_is_above() -> None:
    """SVG counts from the top."""
    for better, upper, lower in (("higher", "0.8", "0.0"), ("lower", "0.0", "0.8")):
        drawn = picture.front([Point("", 0.5, 0.0, "measured"), Point("", 0.9, 0.8, "kept")], "loss", better)
        places = {
            text.text: float(text.attrib["y"])
            for text in ET.fromstring(drawn["svg"]).iter()
            if text.tag.endswith("text") and "text-anchor: end" in text.attrib.get("style", "")
        }
        assert places[upper] < places[lower]


def test_gains_are_shown_too() -> None:
    gain = [Bar("a", "int8/uint8", -1e-3, 1e-5, 2e-2), Bar("b", "fp32", 0.0, 1e-5, -1e-4)]
    assert "nats" in words(picture.depth(gain, "nats")["svg"])


def test_layers_without_loss_are_a_picture_too() -> None:
    assert picture.depth([Bar("only", "fp32", 0.0, 0.0)], LOSS)["png"]


def test_a_deep_network_is_as_wide_as_a_flat_one_and_every_few_layers_are_named() -> None:
    many = [Bar(f"block{i}.conv", "int8/uint8", 1e-5, 1e-5, 1e-4, 2e-5) for i in range(200)]
    drawn = picture.depth(many, LOSS)
    assert [int.from_bytes(picture.depth(bars, LOSS)["png"][16:20]) for bars in (many, BARS)] == [1200, 1200]
    shown = words(drawn["svg"])
    assert "block0.conv" in shown
    assert "block1.conv" not in shown
    assert "every 5. is named" in shown
