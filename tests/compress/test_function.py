"""The user's own functions: found in the working folder, and every failure is one line."""

from pathlib import Path

import pytest

from convkit.compress import function
from convkit.compress.errors import ConvkitError

MODULE = """
limit = 3
def area(a, b=2):
    print("words")
    return a * b
class Maker:
    @staticmethod
    def make():
        return "made"
def fail():
    raise ValueError("no such thing\\nmore")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_functions_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.chdir(tmp_path)
    return name


def test_it_is_found_in_the_working_folder(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert function.call(f"{module}:area", a=4) == 8
    assert function.call(f"{module}:Maker.make") == "made"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "words\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("areas", "there is: Maker, area, fail"),
        ("limit", "is a int, not a function"),
        ("fail", r"raised ValueError: no such thing \(.*:11\)"),
        ("area", "missing 1 required positional argument"),
    ],
)
def test_what_goes_wrong_is_one_line(module: str, name: str, words: str) -> None:
    with pytest.raises(ConvkitError, match=words) as refusal:
        function.call(f"{module}:{name}")
    assert "\n" not in str(refusal.value)


def test_modules_that_cannot_be_imported(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}_b.py").write_text("import no_such_package_here")
    (tmp_path / f"{module}_c.py").write_text("def f(:")
    for name, words in (("_x", "there is no module"), ("_b", "needs 'no_such_package_here'"), ("_c", "SyntaxError")):
        with pytest.raises(ConvkitError, match=words):
            function.load(f"{module}{name}:f")


@pytest.mark.parametrize("path", ["a:b", "a.b:c", "a:B.c"])
def test_what_names_a_function(path: str) -> None:
    assert function.names_one(path)


@pytest.mark.parametrize("path", ["a", "a.onnx", "C:/net.onnx", "x:1x3", "pkg://a/b", "a:", ":b"])
def test_what_names_none(path: str) -> None:
    assert not function.names_one(path)
