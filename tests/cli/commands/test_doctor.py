import json
import os
import subprocess
import sys
from pathlib import Path

from convkit.compress import parts
from tests.command_line import Convkit


def test_what_works_here(convkit: Convkit) -> None:
    result = convkit("doctor", "--json")
    found = json.loads(result.out)
    assert result.code == 0
    assert list(found["engines"]) == parts.names("runtimes")
    assert found["engines"]["onnxruntime"]["works"]
    assert found["targets"]["onnxruntime-cpu"]["works"]
    assert found["versions"]["torch"]


def test_the_tables_say_the_same(convkit: Convkit) -> None:
    result = convkit("doctor")
    assert result.code == 0
    for name in (*parts.names("runtimes"), *parts.names("recipes/targets", ".yaml")):
        assert name in result.out


def without_openvino(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """convkit on a machine where `import openvino` fails."""
    (folder / "openvino.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "convkit.cli.main", *words]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


def test_a_missing_engine_is_told_with_its_install_line(tmp_path: Path) -> None:
    done = without_openvino(tmp_path, "doctor", "--json")
    engine = json.loads(done.stdout)["engines"]["openvino"]
    assert done.returncode == 0
    assert not engine["works"]
    assert engine["install"] == "pip install 'convkit[openvino]'"


def test_a_target_that_does_not_work_here_is_exit_3(tmp_path: Path) -> None:
    done = without_openvino(tmp_path, "doctor", "--target", "openvino-cpu")
    assert done.returncode == 3
    assert done.stderr.startswith("error: target openvino-cpu does not work here: ")
    assert done.stderr.endswith("pip install 'convkit[openvino]'\n")
