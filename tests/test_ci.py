"""The pipelines of docs/ci do what docs/ci.md says: their commands are run as they stand there, on a small network."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pytest
import yaml

from convkit.cli.main import main
from convkit.cli.step import parse
from tests import here
from tests.command_line import Convkit, Result
from tests.compress.network import Net

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "ci.md").read_text()
GITHUB = yaml.safe_load((DOCS / "ci/github-actions.yml").read_text())
GITLAB = yaml.safe_load((DOCS / "ci/gitlab-ci.yml").read_text())
SETTINGS = {"GATE": "p50 <= 100x", "AGREEMENT": "agreement >= 50", "BUDGET": "1"}
"""What a small network on a busy machine is held against, in place of what is written there."""
NEEDS_NO_GPU = pytest.mark.skipif("tensorrt_rtx" in here.engines(), reason="what is said where there is no GPU")
JOBS = ("build", "measure")


def scripts(job: str) -> dict[str, str]:
    """What the job of that name runs, on GitHub and on GitLab."""
    steps = GITHUB["jobs"][job]["steps"]
    return {"github": "\n".join(step.get("run", "") for step in steps), "gitlab": "\n".join(GITLAB[job]["script"])}


def commands(script: str) -> list[str]:
    """The command lines of convkit in a script, each in one line."""
    whole = re.sub(r"\s*\\\n\s*", " ", script)
    return re.findall(r"^\s*(convkit .*?)(?: \|\| .*)?$", whole, re.MULTILINE)


def words(line: str, settings: Mapping[str, str]) -> list[str]:
    """A command line as the shell reads it, without `convkit`; a variable that is not set is an error."""
    return [Template(word).substitute(settings) for word in shlex.split(line, comments=True)][1:]


def settings_of(pipeline: Mapping[Any, Any]) -> dict[str, str]:
    return {**(pipeline.get("env") or pipeline["variables"]), **SETTINGS}


@pytest.mark.parametrize("job", JOBS)
def test_both_pipelines_run_the_same(job: str) -> None:
    github, gitlab = scripts(job).values()
    assert commands(github) == commands(gitlab) != []
    installed = [re.findall(r"^\s*(pip .*)$", script, re.MULTILINE) for script in (github, gitlab)]
    assert installed[0] == installed[1] != []
    ours, theirs = settings_of(GITHUB), settings_of(GITLAB)
    assert {name: value for name, value in ours.items() if name != "TORCH_CPU"} == theirs


@pytest.mark.parametrize("line", re.findall(r"^\$ (convkit .*)$", PAGE, re.MULTILINE))
def test_a_command_line_of_the_page_is_one(line: str) -> None:
    name, *rest = shlex.split(line, comments=True)[1:]
    parse(name, rest)


def test_links_of_the_page_lead_somewhere() -> None:
    found = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert found
    assert all((DOCS / link).exists() for link in found)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user's repository holds: a network that INT8 pays for, and samples."""
    folder = tmp_path_factory.mktemp("repository")
    net = Net(1, 3, 32, 32)
    last = net.relu6(net.conv("x", 64, 3))
    for _ in range(3):
        last = net.relu6(net.conv(last, 64, 3))
    net.head(last)
    net.save(folder / "net.onnx", "scores")
    random = np.random.default_rng(2)
    for name, count in {"calib": 8, "val": 4}.items():
        np.savez(folder / f"{name}.npz", x=random.standard_normal((count, 3, 32, 32)).astype(np.float32))
    return folder


def artifact() -> str:
    """The folder that one job leaves to the other, the same in both pipelines."""
    (path,) = GITLAB["build"]["artifacts"]["paths"]
    for job in JOBS:
        carried = [step["with"] for step in GITHUB["jobs"][job]["steps"] if "load-artifact" in step.get("uses", "")]
        assert {"name": "out", "path": path} in carried
    return str(path)


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after the first job."""
    folder = tmp_path_factory.mktemp("build") / "work"
    shutil.copytree(repository, folder)
    with contextlib.chdir(folder):
        for line in commands(scripts("build")["gitlab"]):
            with pytest.raises(SystemExit) as left:
                main(words(line, settings_of(GITLAB)))
            assert left.value.code == 0, line
    return folder


def measured(convkit: Convkit, folder: Path) -> Result:
    """The command of the second job there; all that it reads is there."""
    with contextlib.chdir(folder):
        (line,) = commands(scripts("measure")["gitlab"])
        typed = words(line, settings_of(GITLAB))
        files = [word for word in typed if word.endswith((".trt", ".npz"))]
        assert [Path(file).is_file() for file in files] == [True] * 3
        return convkit(*typed)


def test_the_first_job_builds_and_asserts(built: Path) -> None:
    report = json.loads((built / "out/engine/report.json").read_text())
    assert report["engine"]["runs_in"] == {"int8": 5}
    assert (built / GITLAB["build"]["artifacts"]["reports"]["junit"]).read_text().startswith("<?xml")


@NEEDS_NO_GPU
def test_the_second_job_says_that_it_measured_nothing(
    convkit: Convkit, repository: Path, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository, tmp_path / "work")
    shutil.copytree(built / artifact(), tmp_path / "work" / artifact())
    done = measured(convkit, tmp_path / "work")
    assert (done.code, done.out, "nothing is measured" in done.err) == (3, "", True)


@NEEDS_NO_GPU
def test_the_second_job_out_of_a_parcel(convkit: Convkit, built: Path, tmp_path: Path) -> None:
    (line,) = re.findall(r"^\$ (convkit pack .*)$", PAGE, re.MULTILINE)
    (built / "wheels").mkdir()
    (built / "wheels/convkit-0.1.0-py3-none-any.whl").touch()
    with contextlib.chdir(built):
        assert convkit(*words(line, {})).code == 0
    subprocess.run(["sh", "parcel/unpack.sh", tmp_path / "work"], cwd=built, check=True, capture_output=True)
    assert measured(convkit, tmp_path / "work").code == 3


def run(script: str, folder: Path, program: str) -> tuple[int, str]:
    """Exit code and output of a script as the CI's shell runs it, with `program` in convkit's place."""
    (folder / "bin").mkdir()
    (folder / "bin/convkit").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "bin/convkit").chmod(0o755)
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = {
        **os.environ,
        **files,
        **SETTINGS,
        "VALIDATION": "val.npz",
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
    }
    command = ["bash", "-e", "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


VERDICTS = {0: ("passed", 0), 1: ("regressed", 1), 2: ("broken", 2), 3: ("not-measured", 0), 70: ("broken", 70)}
"""What the page says of each code: the verdict on GitHub, and how the job's step ends there."""


def gate() -> str:
    (step,) = (step for step in GITHUB["jobs"]["measure"]["steps"] if step.get("id") == "gate")
    return str(step["run"])


@pytest.mark.parametrize("code", VERDICTS)
def test_github_tells_not_measured_from_regressed(tmp_path: Path, code: int) -> None:
    verdict, ends = VERDICTS[code]
    assert f"`{verdict}`" in PAGE
    left, printed = run(gate(), tmp_path, f"exit {code}")
    assert left == ends
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"verdict={verdict}\n"
    assert f"**{verdict}** (exit code {code})" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert printed.startswith("::warning title=") == (code == 3)


@pytest.mark.parametrize("code", VERDICTS)
def test_gitlab_tells_not_measured_from_regressed(tmp_path: Path, code: int) -> None:
    """The code is the job's own, and 3 alone is allowed to be a failure."""
    left, _ = run("\n".join(GITLAB["measure"]["script"][-1:]), tmp_path, f"exit {code}")
    assert left == code
    assert GITLAB["measure"]["allow_failure"] == {"exit_codes": [3]}
    assert "allow_failure" not in GITLAB["build"]


@NEEDS_NO_GPU
def test_the_wrapper_around_convkit_itself(tmp_path: Path) -> None:
    left, printed = run(gate(), tmp_path, f'exec "{sys.executable}" -m convkit.cli.main "$@"')
    assert (left, "::warning title=" in printed) == (0, True)
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == "verdict=not-measured\n"
