"""convkit export: for whom, with what beside it, the same bytes, and nothing at all when it fails."""

import json
from pathlib import Path

import onnx
import pytest

from convkit.cli import export_report
from convkit.compress import record
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.plan import Plan, dump, read
from convkit.export.artifact import Artifact
from convkit.export.onnx import to_onnx
from tests import here
from tests.command_line import Convkit
from tests.compress import network as small
from tests.runtimes import network, quantized


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    quantized.write(path)
    return path


def exported(convkit: Convkit, model: Path, output: Path, *words: str) -> dict[str, bytes]:
    result = convkit("export", "-m", str(model), "-o", str(output), *words)
    assert result.code == 0, result.err
    return {file.name: file.read_bytes() for file in output.iterdir()}


@pytest.mark.parametrize("target", ["onnx", "onnxruntime", "openvino", "onnxruntime-cpu", "openvino-cpu"])
def test_each_target(convkit: Convkit, net: Path, tmp_path: Path, target: str) -> None:
    files = exported(convkit, net, tmp_path / "out", "--target", target)
    assert set(files) == {"model.onnx", "manifest.json", "report.json"}
    report, manifest = json.loads(files["report.json"]), json.loads(files["manifest.json"])
    engine = target.removesuffix("-cpu")
    assert list(report["opened_by"]) == ([] if engine == "onnx" else [engine])
    assert manifest["target"] == target
    assert manifest["digests"]["model"] == record.digest_file(net)
    assert manifest["digests"]["artifact"] == record.digest_bytes(files["model.onnx"])
    onnx.checker.check_model(onnx.load_from_string(files["model.onnx"]), full_check=True)


def test_the_same_words_give_the_same_bytes(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    first, again = (exported(convkit, net, tmp_path / name) for name in ("one", "two"))
    assert first == again == exported(convkit, net, tmp_path / "one")


def test_a_quantized_file_passes_node_for_node(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    files = exported(convkit, net, tmp_path / "out")
    before, after = onnx.load(net).graph, onnx.load_from_string(files["model.onnx"]).graph
    assert [(n.op_type, list(n.output)) for n in after.node] == [(n.op_type, list(n.output)) for n in before.node]
    assert [value.name for value in (*after.input, *after.output)] == ["x", "scores"]


def test_json_is_the_report(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    result = convkit("export", "-m", str(net), "-o", str(tmp_path / "out"), "--json")
    assert json.loads(result.out) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_a_free_size_stays_free(convkit: Convkit, tmp_path: Path) -> None:
    model = network.write(tmp_path / "net.onnx", batch="N", size="side")
    convkit("export", "-m", model, "--shape", "x:Nx3xside=16xside=16", "-o", str(tmp_path / "out"))
    dims = onnx.load(tmp_path / "out" / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, "side", "side"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Model]:
    """A float file, a plan for it, and the network that the plan makes."""
    folder = tmp_path_factory.mktemp("planned")
    file = small.residual().save(folder / "net.onnx", "scores")
    model, plan = small.quantized(load(ModelRef(file)), here.target("onnxruntime-cpu"))
    (folder / "plan.yaml").write_text(dump(plan))
    return file, str(folder / "plan.yaml"), model


def test_a_plan_is_applied_and_kept(convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path) -> None:
    file, plan, made = planned
    files = exported(convkit, Path(file), tmp_path / "out", "--plan", plan, "--target", "onnxruntime-cpu")
    assert files["model.onnx"] == to_onnx(made).SerializeToString(deterministic=True)
    assert files["plan.yaml"] == Path(plan).read_bytes()
    digests = json.loads(files["manifest.json"])["digests"]
    assert digests["plan"] == record.digest_file(plan)
    assert json.loads(files["report.json"])["operators"]["QuantizeLinear"] > 5
    assert convkit("verify", str(tmp_path / "out" / "model.onnx"), "--layers").code == 0


def test_the_seed_that_draws_the_samples_is_kept(
    convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path
) -> None:
    file, plan, _ = planned
    words = ("--plan", plan, "--target", "onnxruntime-cpu", "--seed", "7")
    assert json.loads(exported(convkit, Path(file), tmp_path / "out", *words)["manifest.json"])["seed"] == 7


def test_the_opset_told_is_that_of_onnx(net: Path) -> None:
    """A file may name another domain before it."""
    proto = onnx.load(net)
    told = next(one.version for one in proto.opset_import if not one.domain)
    proto.opset_import.insert(0, onnx.helper.make_opsetid("mine", 77))
    onnx.save(proto, net.with_name("domains.onnx"))
    written = Artifact(net.with_name("domains.onnx"), "", "")
    assert export_report.report(written, {})["opset"] == told


def test_a_plan_that_quantizes_nothing_gives_the_original(
    convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path
) -> None:
    file, plan, _ = planned
    decided = read(plan)
    for number, methods in enumerate(((), decided.methods)):
        empty = tmp_path / f"{number}.yaml"
        empty.write_text(dump(Plan(decided.model, decided.target, methods)))
        words = ("--plan", str(empty), "--target", "onnxruntime-cpu")
        files = exported(convkit, Path(file), tmp_path / f"out{number}", *words)
        assert files["model.onnx"] == Path(file).read_bytes()
        assert json.loads(files["manifest.json"])["digests"]["artifact"] == record.digest_file(file)
    other = exported(convkit, Path(file), tmp_path / "other", *words, "--opset", "18")
    assert onnx.load_from_string(other["model.onnx"]).opset_import[0].version == 18


def test_a_plan_that_quantizes_nothing_keeps_the_size_that_was_fixed(
    convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path
) -> None:
    file, plan, _ = planned
    (tmp_path / "empty.yaml").write_text(dump(Plan(read(plan).model, "onnxruntime-cpu")))
    words = ("--plan", str(tmp_path / "empty.yaml"), "--target", "onnxruntime-cpu", "--shape", "x:8x3x8x8")
    written = onnx.load_from_string(exported(convkit, Path(file), tmp_path / "out", *words)["model.onnx"])
    assert [dim.dim_value for dim in written.graph.input[0].type.tensor_type.shape.dim] == [8, 3, 8, 8]


def test_a_plan_for_another_target_is_refused(
    convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path
) -> None:
    file, plan, _ = planned
    words = ("--plan", plan, "--target", "openvino-cpu")
    result = convkit("export", "-m", file, "-o", str(tmp_path / "out"), *words)
    assert (result.code, list(tmp_path.iterdir())) == (2, [])
    assert "the plan is for onnxruntime-cpu" in result.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--target", "gameboy"], "onnxruntime-cpu"),
        (["--opset", "11"], "opset 11"),
        (["--opset", "9"], "opset 9 is none that convkit writes; give 18 to "),
        (["--plan", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_words_write_nothing(convkit: Convkit, net: Path, tmp_path: Path, words: list[str], told: str) -> None:
    result = convkit("export", "-m", str(net), "-o", str(tmp_path / "out"), *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_is_not_written_into(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    result = convkit("export", "-m", str(net), "-o", str(tmp_path))
    assert result.code == 2
    assert "holiday.jpg" in result.err


def test_what_is_replaced_is_said_and_a_file_of_the_user_is_kept(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    words = ("export", str(net), "-o", str(tmp_path / "out"))
    assert "replacing" not in convkit(*words).err
    assert f"replacing the earlier result in {tmp_path / 'out'}\n" in convkit(*words).err
    (tmp_path / "out" / "manifest.json").unlink()
    for file in (tmp_path / "out").glob("*.json"):
        file.unlink()
    (tmp_path / "out" / "model.onnx").write_bytes(b"mine")
    refused = convkit(*words)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "holds 'model.onnx', which convkit did not write" in refused.err
    assert (tmp_path / "out" / "model.onnx").read_bytes() == b"mine"


def test_an_edited_plan_is_kept_unless_it_is_the_one_applied(
    convkit: Convkit, planned: tuple[str, str, Model], tmp_path: Path
) -> None:
    file, plan, _ = planned
    words = ("export", file, "-o", str(tmp_path / "out"), "--target", "onnxruntime-cpu", "--plan")
    assert convkit(*words, plan).code == 0
    mine = tmp_path / "out" / "plan.yaml"
    mine.write_text(mine.read_text() + "# mine\n")
    refused = convkit(*words, plan)
    assert (refused.code, "plan.yaml was edited since it was written" in refused.err) == (2, True)
    assert mine.read_text().endswith("# mine\n")
    assert convkit(*words, str(mine)).code == 0
