"""What is shown of long work: findings stay, one line each; pictures grow where there is a terminal to show them."""

import pytest

from convkit.cli import show


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def work() -> None:
    with show.progress("searching") as say:
        say("looking")
        say.found("measured 0.5x at 30 dB")
        say.found("measured 0.6x at 35 dB")
        say.picture("  30.0 │ o [5]")


def test_a_pipe_gets_a_line_for_each_finding_and_no_picture(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    work()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[:-1] == [
        "searching …",
        "  looking",
        "  measured 0.5x at 30 dB",
        "  measured 0.6x at 35 dB",
    ]


def test_a_terminal_gets_the_picture_under_the_moving_line(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    work()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "measured 0.6x at 35 dB" in printed.err
    assert "│ o [5]" in printed.err
    assert "\x1b[" in printed.err


def test_no_colour_is_respected(
    terminal: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    work()
    assert "\x1b[3" not in capsys.readouterr().err
