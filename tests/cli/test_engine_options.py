"""What is asked of an engine's builder is looked at before it builds for minutes."""

from pathlib import Path

import pytest

from convkit.cli import engine_options
from convkit.compress.errors import ConvkitError
from convkit.export.tensorrt.request import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the user: an earlier result with times in it, a link to it, and times beside it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    for name in ("out/times", "times"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("cache", [None, "times", "new", "out/../times"])
def test_a_timing_cache_beside_the_output_is_taken(folder: Path, cache: str | None) -> None:
    engine_options.check_cache(Settings(cache=cache), "out")
    engine_options.check_cache(None, "out")
    assert (folder / "times").exists()


@pytest.mark.parametrize(
    ("cache", "output", "said"),
    [
        ("none/times", "out", "--timing-cache none/times is no file in a folder that is there"),
        ("times/times", "out", "is no file in a folder that is there"),
        (".", "out", "is no file in a folder that is there"),
        ("out/times", "out", "--timing-cache out/times is in the output folder"),
        ("out/new", "./out/", "is in the output folder"),
        ("link/times", "out", "is in the output folder"),
        ("result", "result", "is in the output folder"),
    ],
)
def test_one_that_could_not_be_written_or_would_go_is_refused(folder: Path, cache: str, output: str, said: str) -> None:
    with pytest.raises(ConvkitError, match=said):
        engine_options.check_cache(Settings(cache=str(folder / cache) if cache == "." else cache), output)
