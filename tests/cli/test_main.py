"""The front door: what it imports, how it answers wrong words, and with which exit code it leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convkit import __version__
from convkit.cli.commands import list as listing
from convkit.compress import parts
from convkit.compress.errors import ConvkitError, NotAvailableError, VerdictError
from tests.command_line import Convkit

CONVKIT = [sys.executable, "-m", "convkit.cli.main"]
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "numpy", "yaml", "rich", "PIL", "scipy"}
COMMANDS = parts.names("cli/commands")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from convkit.cli.main import CLI; CLI.main(['--help'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.splitlines()[-1].split())
    assert "convkit.cli.main" in modules
    assert not modules & HEAVY
    assert not {name for name in modules if name.startswith("convkit.cli.commands.")}


def test_help_lists_every_command_with_a_line_of_its_own(convkit: Convkit) -> None:
    page = " ".join(convkit("--help").out.split())
    for name in COMMANDS:
        assert parts.about("cli/commands", name)
        assert f"{name} {parts.about('cli/commands', name)}" in page


def test_no_words_are_a_call_for_help(convkit: Convkit) -> None:
    assert convkit() == convkit("--help")


def test_version(convkit: Convkit) -> None:
    assert convkit("--version").out == f"convkit {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_of_itself(convkit: Convkit, name: str) -> None:
    page = convkit(name, "--help")
    assert page.code == 0
    examples = page.out.split("Examples:")[1].split("Options:")[0]
    assert f"convkit {name}" in examples


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lst"], "error: no command is called 'lst'; did you mean 'list'?"),
        (["list", "--jsn"], "error: no such option '--jsn'; did you mean '--json'?"),
        (["run"], "error: missing argument 'RECIPE'; see 'convkit run --help'"),
        (["run", "lite0"], "error: missing option '-o' / '--output'; see 'convkit run --help'"),
        (["inspect"], "error: missing option '-m' / '--model'; see 'convkit inspect --help'"),
        (["inspect", "a.onnx", "-m", "b.onnx"], "error: the model is given twice: a.onnx and --model b.onnx; see"),
        (["inspect", "mynet.py:Net"], "error: 'mynet.py:Net' names a file of code, not a module and its function; "),
        (["run", "lite1000", "-o", "out"], "error: no recipe is called 'lite1000'; did you mean 'lite0'?"),
        (["doctor", "--target", "onnxruntime-gpu"], "error: no target is called 'onnxruntime-gpu'"),
    ],
)
def test_wrong_words_get_one_line_and_exit_2(convkit: Convkit, words: list[str], line: str) -> None:
    result = convkit(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(VerdictError, 1), (ConvkitError, 2), (NotAvailableError, 3)])
def test_an_error_of_the_user_is_one_line(
    convkit: Convkit, monkeypatch: pytest.MonkeyPatch, error: type[ConvkitError], code: int
) -> None:
    def fail(*_: object) -> None:
        raise error("what\nwas wrong", hint="what to do")

    monkeypatch.setattr(listing.show, "table", fail)
    result = convkit("list")
    assert (result.code, result.out, result.err) == (code, "", "error: what was wrong; what to do\n")


def test_a_bug_keeps_its_traceback_and_is_no_verdict(convkit: Convkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing.show, "table", lambda *_: {}["missing"])
    result = convkit("list")
    assert result.code == 70
    assert result.err.startswith("Traceback")
    assert "KeyError: 'missing'" in result.err


def test_an_interrupt_is_one_line(convkit: Convkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing.show, "table", lambda *_: signal.raise_signal(signal.SIGINT))
    result = convkit("list")
    assert result.code == 130
    assert result.err.strip() == "error: interrupted"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*CONVKIT, "list"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("setting", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
def test_a_pipe_gets_no_colours_unless_it_asks(setting: dict[str, str], coloured: bool) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "NO_COLOR"}}
    done = subprocess.run([*CONVKIT, "lst"], env=plain | setting, capture_output=True, text=True, check=False)
    assert ("\x1b[" in done.stderr) is coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(shell: str) -> None:
    asked = os.environ | {"_CONVKIT_COMPLETE": f"{shell}_source"}
    program = "import sys; sys.argv[0] = 'convkit'; from convkit.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=False)
    assert "_CONVKIT_COMPLETE" in done.stdout


def test_targets_complete_from_their_folder() -> None:
    asked = os.environ | {
        "_CONVKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "convkit doctor --target onnxr",
        "COMP_CWORD": "3",
    }
    program = "from convkit.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,onnxruntime-cpu\n"
