"""`convkit quantize` keeps to what was asked of it: a batch that --shape fixed, and all that a --plan says."""

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import yaml

from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress.plan import Plan
from tests.cli import quantizable
from tests.cli.quantizable import Quantize
from tests.command_line import Convkit
from tests.compress.network import EXACT

OPTIONS = (*quantizable.QUICK, "--threads", "1", "--min-sqnr", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = quantizable.write(tmp_path_factory.mktemp("asked"))
    one = yaml.safe_load(parts.path("recipes/targets", "onnxruntime-cpu").read_text())
    (made / "one.yaml").write_text(yaml.safe_dump(one | {"placements": [{"name": "everything"}]}))
    return made


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return quantizable.searching(convkit, folder, tmp_path, monkeypatch, OPTIONS)


def test_a_batch_that_is_fixed_is_measured(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    # The file given leaves it free; what is made of the network does not. On the real engine.
    quantize = quantizable.command(convkit, folder, tmp_path / "out")
    options = ("--target", str(folder / "one.yaml"), "--budget", "1", "--no-tune", "--threads", "1")
    done = quantize("--shape", "x:8x3x8x8", *options)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["measurement"]["batch"] == 8
    assert {network["name"] for network in report["networks"]} == {"original", "everything"}


def planned(folder: Path, place: Path, **changes: object) -> str:
    """A plan of the small network."""
    model = quantizable.job(folder).model
    place.write_text(plans.dump(Plan(model.digest, "onnxruntime-cpu", **changes)))  # type: ignore[arg-type]
    return str(place)


def test_without_tuning_a_search_keeps_the_knobs_of_its_plan(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    plan = planned(folder, tmp_path / "mine.yaml", engine={"optimization": "extended"})
    done = quantize("--plan", plan, "--formats", "int8", "--bops", "<=0.5x")
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml")
    assert found.layers
    assert found.engine == {"optimization": "extended"}


@pytest.mark.parametrize("words", [(), ("--formats", "int8"), ("--dry-run",)])
def test_a_plan_for_another_target_is_refused(
    quantize: Quantize, folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    plan = planned(folder, tmp_path / "mine.yaml")
    done = quantize("--target", "openvino-cpu", "--budget", "1", "--no-tune", "--plan", plan, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err == ("error: the plan is for onnxruntime-cpu, not openvino-cpu; give --target onnxruntime-cpu\n"), (
        done.err
    )
    assert not (tmp_path / "out").exists()


def test_a_plan_of_widths_alone_is_applied(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    # As `convkit shrink` leaves it.
    plan = planned(folder, tmp_path / "mine.yaml", methods=EXACT, widths={"conv3": 12})
    done = quantize("--plan", plan, "--max-drop", "100")
    assert done.code == 0, done.err
    found = plans.read(tmp_path / "out" / "plan.yaml")
    assert (found.widths, found.layers) == ({"conv3": 12}, {})
    made, whole = (onnx.load(path) for path in (tmp_path / "out" / "model.onnx", folder / "net.onnx"))
    assert [*widths(made)] == [8, 12, 12, 8]
    assert [*widths(whole)] == [8, 16, 16, 8]


def widths(network: onnx.ModelProto) -> Iterator[int]:
    """Channels that the convolutions make."""
    held = {tensor.name: tensor.dims[0] for tensor in network.graph.initializer if tensor.dims}
    return (held[node.input[1]] for node in network.graph.node if node.op_type == "Conv")


def test_a_plan_for_a_target_of_the_users_own_is_applied_to_it(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    made = quantizable.job(folder).model
    (tmp_path / "mine.yaml").write_text(plans.dump(Plan(made.digest, "one", EXACT)))
    quantize = quantizable.command(convkit, folder, tmp_path / "out")
    words = ("--plan", str(tmp_path / "mine.yaml"), "--dry-run")
    assert quantize("--target", str(folder / "one.yaml"), *words).code == 0
    done = quantize("--target", "onnxruntime-cpu", *words)
    assert (done.code, done.err) == (2, "error: the plan is for one, not onnxruntime-cpu; give --target one\n")
