"""A step is done anew where anything that it reads is another: functions, and files that it is told of in a file."""

import datetime as dt
from pathlib import Path

import pytest

from convkit.cli import journal
from convkit.cli.step import Step

NETS = "def small(): return 1\ndef large(): return 2\n"


def digest(**settings: object) -> str:
    return journal.digest(Step("bench", "bench", settings), {})


@pytest.mark.parametrize("place", ["two_nets:{}", "eager:two_nets:{}"])
def test_two_functions_of_one_module_are_two(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    assert digest(model=place.format("small")) != digest(model=place.format("large"))


@pytest.mark.parametrize("named", ["photos", "{0}/photos", "photos/one.npz", "own_samples:make"])
def test_what_a_file_of_data_names_is_read_too(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder that the step is done in, as the step itself looks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "d.yaml").write_text(f"{{path: '{named.format(tmp_path)}', preprocess: {{mean: 0, std: 1}}}}")
    found = []
    for content in ("one", "other", "one"):
        (tmp_path / "photos" / "one.npz").write_text(content)
        (tmp_path / "own_samples.py").write_text(f"def make(): return '{content}'")
        found.append(digest(data=str(tmp_path / "d.yaml")))
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("text", ["[d.yaml, d.yaml]", "{path: " + "x" * 5000 + "}", "{path: ''}", "&a [*a]", "[", "\0"])
def test_a_file_of_data_that_names_nothing_readable_has_a_digest(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step itself says what is wrong with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.yaml").write_text(text)
    assert digest(data=str(tmp_path / "d.yaml")) != digest(data="d.yaml")


def test_the_weights_beside_an_openvino_model_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("<net/>")
    found = []
    for weights in (b"one", b"other"):
        (tmp_path / "net.bin").write_bytes(weights)
        found.append(digest(candidates=[f"openvino:{tmp_path}/net.xml"]))
    assert found[0] != found[1]


def test_dates_and_what_looks_like_one_are_settings() -> None:
    """As YAML reads them; a key may be one too."""
    days: list[object] = [dt.date(2020, 1, 2), dt.date(2020, 1, 3), "2020-01-02"]
    assert len({digest(arg={"day": day, "by": {dt.date(2020, 1, 1): 1}}) for day in days}) == 3
