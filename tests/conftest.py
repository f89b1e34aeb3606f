"""What all tests share: the command line as a function, golden files, and threads that leave room for each other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command_line import Convkit, Result

# Two test processes, each with engines that would take every core, only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What blocks a merge must be the same examples each time; a person's own runs look for new ones.
settings.register_profile("convkit", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("convkit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the golden files anew instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a GPU is skipped, and so told as not verified, where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here: not verified"))


@pytest.fixture
def convkit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Convkit:
    """`convkit("list", "targets")`: the command line, run in this process."""
    from convkit.cli.main import main

    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("help-list", text)` compares with golden/help-list.txt beside the test; --regenerate writes it."""
    folder = request.path.parent / "golden"

    def compare(name: str, text: str) -> None:
        file = Path(folder / f"{name}.txt")
        if request.config.getoption("--regenerate"):
            folder.mkdir(exist_ok=True)
            file.write_text(text)
        assert file.exists(), f"no golden file {file}; run pytest --regenerate and read what it wrote"
        assert text == file.read_text()

    return compare
