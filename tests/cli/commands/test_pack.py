"""convkit pack: there and back with a shell alone, the same bytes again, and each way in which it is refused."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.cli import values
from tests.command_line import Convkit, Result

ENGINE = os.urandom(45_000)
PIECES = [f"pack.tar.{number:04}" for number in range(6)]
Pack = Callable[..., Result]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with outputs of convkit, data and wheels; the commands are in it."""
    for name, content in {"out/engine/engine.trt": ENGINE, "out/engine/plan.yaml": b"plan", "val.npz": b"data"}.items():
        file = tmp_path / "work" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "work/wheels").mkdir()
    (tmp_path / "work/wheels/convkit-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def pack(convkit: Convkit, work: Path) -> Pack:
    def call(*words: str, output: str = "parcel", piece: str = "10kB") -> Result:
        return convkit("pack", *words, "-o", output, "--piece", piece)

    return call


def unpack(parcel: Path, to: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """As on a machine with a shell and nothing of ours."""
    environment = {"PATH": path or os.defpath, "LC_ALL": "C"}
    words = ["/bin/sh", str(parcel / "unpack.sh"), str(to)]
    return subprocess.run(words, env=environment, cwd="/", capture_output=True, text=True, check=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_there_and_back(pack: Pack, work: Path, tmp_path: Path) -> None:
    done = pack("out/engine", "val.npz", "--wheels", "wheels")
    assert done.code == 0, done.err
    assert "6 pieces" in done.out
    assert sorted(files(work / "parcel")) == ["SHA256SUMS", "manifest.json", *PIECES, "unpack.sh"]
    before = {name: content for name, content in files(work).items() if not name.startswith("parcel/")}
    parcel = shutil.move(work / "parcel", tmp_path / "a 'carried' parcel")
    shutil.rmtree(work)
    there = unpack(parcel, tmp_path / "new/there")
    assert there.returncode == 0, there.stderr
    assert files(tmp_path / "new/there") == before
    (line,) = (line for line in there.stdout.splitlines() if "pip install" in line)
    assert "--no-index --find-links" in line
    assert "wheels'/*.whl" in line


def test_checksums_are_as_sha256sum_reads_them(pack: Pack, work: Path) -> None:
    pack("out/engine")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=work / "parcel", check=True)


def test_the_same_files_give_the_same_bytes(pack: Pack, work: Path) -> None:
    """Nor do times, owners, or the order in which they are named make a difference to the pieces."""
    pack("out/engine", "val.npz", output="one")
    os.utime(work / "val.npz", (1, 1))
    (work / "val.npz").chmod(0o600)
    pack("out/engine", "val.npz", output="two")
    assert files(work / "one") == files(work / "two")
    pack("val.npz", "out", "out/engine", output="three")
    assert [files(work / "three")[name] for name in PIECES] == [files(work / "one")[name] for name in PIECES]


def test_what_can_be_run_still_can(pack: Pack, work: Path, tmp_path: Path) -> None:
    (work / "bench.sh").write_text("echo measured")
    (work / "bench.sh").chmod(0o700)
    pack("bench.sh", "val.npz")
    unpack(work / "parcel", tmp_path / "there")
    assert (tmp_path / "there/bench.sh").stat().st_mode & 0o777 == 0o755 & ~_umask()
    assert (tmp_path / "there/val.npz").stat().st_mode & 0o111 == 0


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_links_within_stay_links(pack: Pack, work: Path, tmp_path: Path) -> None:
    (work / "out/latest").symlink_to(work / "out/engine")
    pack("out")
    unpack(work / "parcel", tmp_path / "there")
    assert (tmp_path / "there/out/latest").readlink() == Path("engine")
    assert (tmp_path / "there/out/latest/engine.trt").read_bytes() == ENGINE


def test_what_is_elsewhere_keeps_its_name_alone(pack: Pack, work: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/photo.png").write_bytes(b"photo")
    pack("../elsewhere", "out/engine/plan.yaml")
    unpack(work / "parcel", tmp_path / "there")
    assert sorted(files(tmp_path / "there")) == ["elsewhere/photo.png", "out/engine/plan.yaml"]


def truncated(parcel: Path, name: str) -> None:
    (parcel / name).write_bytes((parcel / name).read_bytes()[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a piece": (lambda at: truncated(at, PIECES[2]), ["pack.tar.0002 is damaged"]),
    "a missing piece": (lambda at: (at / PIECES[5]).unlink(), ["pack.tar.0005 is missing"]),
    "several": (
        lambda at: [truncated(at, PIECES[0]), (at / PIECES[3]).unlink()],
        ["pack.tar.0000 is damaged", "pack.tar.0003 is missing", "2 of the pieces must be copied again"],
    ),
    "the list": (lambda at: (at / "SHA256SUMS").write_text("".join(_lines(at)[:-1])), ["SHA256SUMS is damaged"]),
    "no list": (lambda at: (at / "SHA256SUMS").unlink(), ["SHA256SUMS is missing"]),
}


def _lines(parcel: Path) -> list[str]:
    return (parcel / "SHA256SUMS").read_text().splitlines(keepends=True)


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_nothing_is_unpacked(pack: Pack, work: Path, tmp_path: Path, case: str) -> None:
    damage, told = DAMAGE[case]
    pack("out/engine")
    damage(work / "parcel")
    there = unpack(work / "parcel", tmp_path / "there")
    assert (there.returncode, there.stdout) == (2, "")
    for words in told:
        assert f"error: {words}" in there.stderr
    assert not list(tmp_path.glob("there*"))


def test_a_script_that_was_cut_short_does_nothing(pack: Pack, work: Path, tmp_path: Path) -> None:
    pack("val.npz")
    whole = (work / "parcel/unpack.sh").read_text()
    for length in range(0, len(whole) - len('main "$@"\n'), 97):
        (work / "parcel/unpack.sh").write_text(whole[:length])
        unpack(work / "parcel", tmp_path / "there")
        assert not list(tmp_path.glob("there*"))


def test_nothing_there_is_overwritten(pack: Pack, work: Path, tmp_path: Path) -> None:
    pack("val.npz")
    (tmp_path / "there").mkdir()
    assert unpack(work / "parcel", tmp_path / "there").returncode == 0
    again = unpack(work / "parcel", tmp_path / "there")
    assert (again.returncode, "holds files already" in again.stderr) == (2, True)


def test_a_missing_tool_is_named(pack: Pack, work: Path, tmp_path: Path) -> None:
    pack("val.npz")
    (tmp_path / "bin").mkdir()
    there = unpack(work / "parcel", tmp_path / "there", str(tmp_path / "bin"))
    assert (there.returncode, there.stderr) == (2, "error: sha256sum is not installed\n")


def test_json_says_what_the_folder_holds(pack: Pack, work: Path) -> None:
    told = json.loads(pack("out/engine", "--json").out)
    assert told["files"] == {"out/engine/engine.trt": 45_000, "out/engine/plan.yaml": 4}
    assert [line.split() for line in _lines(work / "parcel")] == [
        [piece["digest"], name] for name, piece in told["pieces"].items()
    ]
    manifest = json.loads((work / "parcel/manifest.json").read_text())
    assert manifest["digests"] == {"SHA256SUMS": told["digest"]}
    assert manifest["command"][:3] == ["convkit", "pack", "out/engine"]


def test_an_earlier_parcel_is_replaced_and_what_is_not_ours_is_kept(pack: Pack, work: Path) -> None:
    pack("out/engine")
    again = pack("val.npz")
    assert (again.code, "replacing the earlier result" in again.err) == (0, True)
    assert sorted(files(work / "parcel")) == ["SHA256SUMS", "manifest.json", PIECES[0], PIECES[1], "unpack.sh"]
    (work / "parcel/mine.txt").write_text("mine")
    refused = pack("val.npz")
    assert (refused.code, "holds 'mine.txt', which convkit did not write" in refused.err) == (2, True)
    assert (work / "parcel/mine.txt").read_text() == "mine"


def test_wheels_without_our_own_are_remarked(pack: Pack, work: Path) -> None:
    (work / "wheels/convkit-0.1.0-py3-none-any.whl").rename(work / "wheels/numpy-2.4.6-cp311.whl")
    done = pack("val.npz", "--wheels", "wheels")
    assert (done.code, "convkit's own wheel is not among the wheels" in done.err) == (0, True)


def test_a_file_that_changes_meanwhile_leaves_the_earlier_parcel(
    pack: Pack, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrinking(*_: object, **__: object) -> None:
        raise OSError("unexpected end of data")

    pack("val.npz")
    before = files(work)
    monkeypatch.setattr("tarfile.copyfileobj", shrinking)
    done = pack("out/engine")
    assert (done.code, "engine.trt changed while it was packed" in done.err) == (2, True)
    assert files(work) == before


def make(work: Path) -> None:
    """What no one can pack, each in a folder of its own."""
    for name in ("out/leading", "out/broken", "out/special", "out/same/deep", "out/empty", "sources", "other/same"):
        (work / name).mkdir(parents=True)
    (work / "out/leading/passwords").symlink_to("/etc/passwd")
    (work / "out/broken/link").symlink_to("nowhere")
    os.mkfifo(work / "out/special/pipe")
    (work / "sources/convkit-0.1.0.tar.gz").write_bytes(b"")
    (work.parent / "val.npz").write_bytes(b"another")


BAD: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "missing argument 'PATH...'"),
    "an empty word": ([""], "it is empty"),
    "what there is not": (["out/none"], "there is no out/none"),
    "an empty folder": (["out/empty"], "out/empty holds no file"),
    "a link out": (["out/leading"], "the link out/leading/passwords leads outside out/leading, to /etc/passwd"),
    "a link to nothing": (["out/broken"], "the link out/broken/link leads nowhere"),
    "a pipe": (["out/special"], "out/special/pipe is neither a file nor a folder"),
    "two of one name": (["val.npz", "../val.npz"], "would both be val.npz; rename one of them"),
    "itself": (["out/engine", "-o", "out/engine/parcel"], "hold each other"),
    "what holds it": (["."], "hold each other"),
    "no wheels": (["val.npz", "--wheels", "none"], "there are no wheels in none; pip wheel"),
    "a folder without wheels": (["val.npz", "--wheels", "out/empty"], "out/empty holds no file"),
    "sources": (["val.npz", "--wheels", "sources"], "convkit-0.1.0.tar.gz is no wheel"),
    "no size": (["val.npz", "--piece", "big"], "'big' is no size; write 15MB or 1GiB"),
    "no unit": (["val.npz", "--piece", "15"], "'15' is no size"),
    "a size of nothing": (["val.npz", "--piece", "0MB"], "'0MB' is no size"),
    "too small a size": (["out/engine", "--piece", "1B"], "are more than 10,000 pieces; give --piece 1MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(convkit: Convkit, work: Path, case: str) -> None:
    make(work)
    before = sorted(work.rglob("*"))
    words, told = BAD[case]
    done = convkit("pack", "-o", "parcel", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert told in done.err
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(("text", "size"), [("1mib", 2**20), ("1MiB", 2**20), ("2 Kb", 2000), ("7b", 7)])
def test_units_of_sizes_are_read_in_any_case(text: str, size: int) -> None:
    assert values.Size().convert(text, None, None) == size
