"""`convkit train --search`: formats are found while they are trained, within their bit operations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convkit.compress import plan as plans
from convkit.compress.training import checkpoint
from tests.bench.searched import NARROW
from tests.cli.commands import test_train_quantized as aware_tests
from tests.cli.commands.test_train_quantized import WEIGHTS, Aware

folder, aware = aware_tests.folder, aware_tests.aware
SEARCH = "--search", "int4,int8,int2", "--bops", "<=0.035x", "--epochs", "6", "--norms", "--validation", "val.npz"


@pytest.fixture
def searched(aware: Aware, folder: Path) -> dict[str, Any]:
    if not (folder / "found").exists():
        done = aware.train(*SEARCH, "--json", out="found")
        assert done.code == 0, done.err
    report: dict[str, Any] = json.loads((folder / "found/report.json").read_text())
    return report


def test_a_network_of_mixed_formats_is_found_within_its_budget(searched: dict[str, Any], folder: Path) -> None:
    found = searched["searched"]
    assert found["options"] == ["int8", "int4", "int2"]
    assert 0.85 * found["target"] <= found["cost"] <= found["target"]
    assert found["entropy"] < 0.05 * np.log(3)
    assert np.array(found["policy"]).shape == (7, len(found["decisions"]), 3)
    plan = plans.read(folder / "found/plan.yaml")
    assert {name: layer.weight for name, layer in plan.layers.items() if layer.weight} == found["formats"]
    assert [layer.activation for layer in plan.layers.values() if not layer.weight] == ["uint8"] * 3  # pools, on codes
    first, *_, last = found["formats"].values()
    assert first == last == "int8"
    assert (folder / "found/policy.svg").is_file()
    assert (folder / "found/policy.png").is_file()
    made = onnx.load(folder / "found/model.onnx")
    onnx.checker.check_model(made, full_check=True)


def test_bit_operations_are_those_of_the_plan(searched: dict[str, Any], aware: Aware, folder: Path) -> None:
    """By hand: 12x12 images, then 6x6; nine taps, twelve channels."""
    bits = {"int8": 64, "int4": 32, "int2": 16}
    sizes = [9 * 12 * 144, 9 * 144 * 144, 9 * 144 * 36, 9 * 144 * 36, 12 * 4]
    formats = searched["searched"]["formats"].values()
    assert searched["searched"]["cost"] == sum(macs * bits[name] for macs, name in zip(sizes, formats, strict=True))
    assert searched["searched"]["target"] == pytest.approx(0.035 * 1024 * sum(sizes))


def test_the_engine_scores_what_was_trained(searched: dict[str, Any]) -> None:
    scores = {name: one["metrics"]["top1"] for name, one in searched["networks"].items()}
    assert scores["searched"] == pytest.approx(searched["simulated"]["top1"], abs=0.5)
    assert scores["searched"] >= scores["float"] - 2
    assert searched["held_back"][-1] < 0.8 * searched["held_back"][0]


def test_the_same_words_make_the_same_bytes_also_where_training_was_killed(
    searched: dict[str, Any], aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = checkpoint.Checkpoint.keep

    def killed(self: checkpoint.Checkpoint, epoch: int, *given: Any) -> None:
        kept(self, epoch, *given)
        if epoch == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoint, "keep", killed)
        assert aware.train(*SEARCH, out="again").code != 0
    done = aware.train(*SEARCH, "--resume", out="again")
    assert done.code == 0, done.err
    assert "bit operations of" in done.out
    again, first = (folder / place / "model.onnx" for place in ("again", "found"))
    assert again.read_bytes() == first.read_bytes()
    assert json.loads((folder / "again/report.json").read_text())["searched"] == searched["searched"]


@pytest.mark.parametrize(("by", "entries"), [("hawq", 0), ("dnas", 3)])
def test_others_decide_within_the_same_budget(aware: Aware, folder: Path, by: str, entries: int) -> None:
    """What decides before it trains has no policy to show."""
    words = "--search", "int8,int4,int2", "--bops", "<=0.035x", "--by", by, "--epochs", "2", "--norms"
    done = aware.train(*words, out=by)
    assert done.code == 0, done.err
    found = json.loads((folder / by / "report.json").read_text())["searched"]
    assert 0.85 * found["target"] <= found["cost"] <= found["target"]
    assert len(found["policy"]) == entries
    assert (folder / by / "policy.svg").exists() == bool(entries)


def test_layers_are_decided_together(aware: Aware, folder: Path) -> None:
    words = "--search", "int8,int4/uint4", "--bops", "<=0.055x", "--together", "*", "--epochs", "1"
    assert aware.train(*words, out="one").code == 0
    found = json.loads((folder / "one/report.json").read_text())["searched"]
    (layers,) = found["decisions"].values()
    assert len(layers) == 3
    assert found["layers"] == {"int8": 2, "int4/uint4": 3}


def test_activations_have_as_few_codes_as_a_target_lets_them(aware: Aware, folder: Path) -> None:
    """A target of the user's own, for hardware whose kernels compute in fewer bits."""
    (folder / "codes.yaml").write_text(NARROW.read_text())
    words = "--search", "int8/uint8,int4/uint4,int2/uint2", "--bops", "<=0.0147x", "--target", "codes.yaml"
    done = aware.train(*words, "--epochs", "2", "--norms", out="few")
    assert done.code == 0, done.err
    found, plan = json.loads((folder / "few/report.json").read_text())["searched"], plans.read(folder / "few/plan.yaml")
    bits = {"int8/uint8": 64, "int4/uint4": 16, "int2/uint2": 4}
    sizes = [9 * 12 * 144, 9 * 144 * 144, 9 * 144 * 36, 9 * 144 * 36, 12 * 4]
    chosen = [f"{layer.weight}/{layer.activation}" for layer in plan.layers.values() if layer.weight]
    assert found["cost"] == sum(macs * bits[name] for macs, name in zip(sizes, chosen, strict=True))
    assert 0.85 * found["target"] <= found["cost"] <= found["target"]
    uniform = aware.train("--precision", "int4/uint4", "--target", "codes.yaml", "--epochs", "1", out="four")
    assert uniform.code == 0, uniform.err
    layers = plans.read(folder / "four/plan.yaml").layers.values()
    assert {(layer.weight, layer.activation) for layer in layers if layer.weight} == {("int4", "uint4")}


def test_widths_are_found_beside_formats(aware: Aware, folder: Path) -> None:
    """Channels of twelve may be eight: by hand, as above."""
    words = "--search", "int8,int4", "--widths", "0.6", "--bops", "<=0.022x", "--norms", "--validation", "val.npz"
    done = aware.train(*words, "--epochs", "8", out="narrow")
    assert done.code == 0, done.err
    assert " 8 wide" in done.out
    report = json.loads((folder / "narrow/report.json").read_text())
    found, plan = report["searched"], plans.read(folder / "narrow/plan.yaml")
    assert found["widths"] == dict(plan.widths)
    assert set(found["widths"].values()) == {8}
    assert found["entropy"] < 0.05
    made = onnx.load(folder / "narrow/model.onnx")
    onnx.checker.check_model(made, full_check=True)
    names, bits = list(found["formats"]), {"int8": 64, "int4": 32}
    width = {name: found["widths"].get(name, 12) for name in names[:4]}
    shapes = [tuple(one.dims) for one in made.graph.initializer if len(one.dims) == 4]
    reads = [1, *width.values()]
    assert sorted(shapes) == sorted((out, read, 3, 3) for out, read in zip(width.values(), reads, strict=False))
    places = [144, 144, 36, 36]
    sizes = [9 * read * out * at for read, out, at in zip(reads, width.values(), places, strict=False)]
    sizes.append(reads[4] * 4)
    taken = sum(size * bits[found["formats"][name]] for size, name in zip(sizes, names, strict=True))
    assert found["cost"] == taken
    assert 0.9 * found["target"] <= taken <= found["target"]
    for name in ("policy", "policy_widths"):
        assert (folder / f"narrow/{name}.svg").is_file()
    scores = {name: one["metrics"]["top1"] for name, one in report["networks"].items()}
    assert scores["searched"] == pytest.approx(report["simulated"]["top1"], abs=0.5)
    assert scores["searched"] >= scores["float"] - 5
    assert report["held_back"][-1] < report["held_back"][0]
    assert "widths" in (folder / "narrow/plan.yaml").read_text()


@pytest.fixture
def tables(aware: Aware, folder: Path) -> Path:
    """Of a search that measured the network here, whose kernels all take uint8 activations: one time for all."""
    if not (folder / "tables").exists():
        words = "--formats", "int8,int4,int2", "--latency", "<=2x", "--max-drop", "100", "--budget", "2", "--no-tune"
        done = aware.convkit("quantize", "aware_net:build", *WEIGHTS, "--data", "train.npz", *words, "-o", "tables")
        assert done.code == 0, done.err
    return folder / "tables"


def test_a_network_is_found_within_the_time_that_tables_tell(aware: Aware, folder: Path, tables: Path) -> None:
    """On an engine whose kernels take the less time the fewer bits a weight has."""
    text = json.loads((tables / "tables.json").read_text())
    for costs in text["layers"].values():
        for option, cost in costs.items():
            cost["seconds"] *= {"int4/uint8": 0.5, "int2/uint8": 0.25}.get(option, 1)
    text["trials"] = []
    (folder / "fewer.json").write_text(json.dumps(text))
    of = {name: layer["int8/uint8"]["seconds"] for name, layer in text["layers"].items() if "int8/uint8" in layer}
    rest = text["fixed"]["seconds"] + sum(
        layer["uint8"]["seconds"] for layer in text["layers"].values() if "uint8" in layer
    )
    rest += next(edge["directed"][0][2] for edge in text["edges"] if edge["given"] == "fp32")  # the input's
    first, *inner, last = of
    least, most = (rest + of[first] + of[last] + part * sum(of[name] for name in inner) for part in (0.25, 1))
    limit = least + 0.5 * (most - least)
    words = "--search", "int8,int4,int2", "--latency", f"<={limit * 1e6:.5f}us", "--tables", "fewer.json"
    done = aware.train(*words, "--epochs", "3", out="fast")
    assert done.code == 0, done.err
    assert "by the tables" in done.out
    found = json.loads((folder / "fast/report.json").read_text())["searched"]
    assert found["quantity"] == "seconds"
    parts = {"int8": 1, "int4": 0.5, "int2": 0.25}
    formats = found["formats"]
    taken = rest + sum(of[name] * parts[formats[name]] for name in of)
    assert found["cost"] == pytest.approx(taken)
    assert least < taken <= found["target"] == pytest.approx(limit, rel=1e-5)
    assert formats[first] == formats[last] == "int8"
    assert len({formats[name] for name in inner}) > 1


def test_tables_that_cannot_tell_are_told(aware: Aware, folder: Path, tables: Path) -> None:
    text = json.loads((tables / "tables.json").read_text())

    def refused(message: str, *words: str, **changes: object) -> None:
        (folder / "wrong.json").write_text(json.dumps(text | changes))
        done = aware.train("--search", "int8,int4", "--latency", "<=0.9x", "--tables", *words, out="wrong")
        assert done.code == 2
        assert message in done.err
        assert not (folder / "wrong").exists()

    refused("cannot read tables", "nowhere.json")
    refused("all take the same time", str(tables))
    refused("of another model", "wrong.json", model="another", plan="")
    refused("tells what openvino-cpu takes", "wrong.json", target="openvino-cpu")
    refused("tells what onnxruntime-cpu takes", str(tables), "--target", "openvino-cpu")
    refused("layers in fp16", "wrong.json", floating="fp16")
    narrow = replace(plans.loads(text["plan"]), widths={next(iter(text["layers"])): 4})
    refused("a narrower network", "wrong.json", plan=plans.dump(narrow))
    bare = {name: {"fp32": known["fp32"]} for name, known in text["layers"].items()}
    refused("does not tell what", "wrong.json", layers=bare, edges=[], trials=[])
    *_, last = text["layers"]
    least = {last: text["layers"][last]}
    refused("tells nothing of", "wrong.json", layers=least, edges=[], trials=[])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--search", "int8,int4", "--latency", "<=0.9x"), "--latency and --tables belong together"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--tables", "x"), "--latency and --tables belong together"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--latency", "<=1x"), "one budget"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--by", "hawk"), "did you mean 'hawq'"),
        (("--by", "hawq"), "belong together"),
        (("--mixed",), "--mixed belongs to --switch"),
        (("--latency", "<=0.9x"), "belong together"),
        (("--search", "int8,int4"), "belong together"),
        (("--widths", "0.5"), "belong together"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--widths", "half"), "no shares of channels"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--widths", "1.5,0.5"), "no shares of channels"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--widths", "0.5", "--by", "dnas"), "by fliqs"),
        (("--bops", "<=0.05x"), "belong together"),
        (("--together", "a"), "belong together"),
        (("--search", "int8", "--bops", "<=0.05x"), "is no choice"),
        (("--search", "int8,int8", "--bops", "<=0.05x"), "is no choice"),
        (("--search", "int8,int7/uint9", "--bops", "<=0.05x"), "uint9"),
        (("--search", "int8,int4", "--bops", "<=0.01x"), "give at least"),
        (("--search", "int8,int4", "--bops", "<=0.5x"), "nothing to search"),
        (("--search", "int8,int4", "--bops", "often"), "is no budget"),
        (("--search", "int8,fp8_e4m3", "--bops", "<=0.05x"), "unlike networks"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--precision", "int8"), "each say formats"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--together", "nowhere"), "names no layer"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--shards", "2"), "in one process"),
        (("--search", "int8,int4", "--bops", "<=0.05x", "--elastic", "width"), "is not for"),
    ],
)
def test_what_cannot_be_searched_is_told(aware: Aware, folder: Path, words: tuple[str, ...], message: str) -> None:
    done = aware.train(*words, out="wrong")
    assert done.code == (1 if message == "give at least" else 2)
    assert message in done.err
    assert not (folder / "wrong" / "model.onnx").exists()
