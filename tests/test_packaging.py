"""convkit's folders stand at the top of the repository and are installed as the one package convkit."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("cli", "compress", "export", "recipes", "runtimes")


def source_files() -> set[str]:
    found = {
        f"convkit/{file.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    return found | {"convkit/__init__.py", "convkit/py.typed"}


def build(kind: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_linked_into_the_package(folder: str) -> None:
    link = ROOT / ".src" / "convkit" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / ".." / folder


def test_no_folder_of_python_files_is_left_out() -> None:
    at_the_top = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert at_the_top == set(FOLDERS)


def test_the_wheel_holds_convkit_and_nothing_else(tmp_path: Path) -> None:
    assert files_of(build("wheel", ROOT, tmp_path)) == source_files()


def test_the_wheel_has_the_command(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", ROOT, tmp_path)) as archive:
        (entries,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "convkit = convkit.cli.main:main" in archive.read(entries).decode()


def test_a_wheel_built_from_the_sdist_is_the_same(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (unpacked,) = (tmp_path / "source").iterdir()
    assert files_of(build("wheel", unpacked, tmp_path / "wheel")) == source_files()
