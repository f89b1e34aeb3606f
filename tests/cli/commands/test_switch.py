"""`convkit train --switch`, `convkit switch`: one file, a network of every width, made without data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convkit.compress.training.shifted import shift
from convkit.export import switched
from tests.cli.commands import test_train_quantized as aware_tests
from tests.cli.commands.test_train_quantized import Aware

folder, aware = aware_tests.folder, aware_tests.aware


@pytest.fixture
def trained(aware: Aware, folder: Path) -> Aware:
    if not (folder / "any").exists():
        done = aware.train(
            "--switch", "8,4,2", "--validation", "val.npz", "--norms", "--epochs", "6", "--json", out="any"
        )
        assert done.code == 0, done.err
    return aware


def test_every_width_is_trained_at_once_and_made_of_one_file(trained: Aware, folder: Path) -> None:
    report = json.loads((folder / "any/report.json").read_text())
    scores = {name: one["metrics"]["top1"] for name, one in report["networks"].items()}
    assert min(report["held_back"]) < 0.8 * report["held_back"][0]
    assert min(scores[f"{bits} bits"] for bits in (8, 4, 2)) >= scores["float"] - 5
    assert report["bytes"] < 2 * report["bytes_of_widest"]
    whole = onnx.load(folder / "any/model.onnx")
    for bits in (8, 4, 2):
        done = trained.convkit("switch", "any/model.onnx", "--bits", str(bits), "--json", "-o", f"b{bits}")
        assert done.code == 0, done.err
        assert json.loads(done.out)["widths"] == [8, 4, 2]
        assert json.loads((folder / f"b{bits}/report.json").read_text()) == json.loads(done.out)
        made = onnx.load(folder / f"b{bits}/model.onnx")
        onnx.checker.check_model(made, full_check=True)
        done = trained.convkit(
            "bench", f"b{bits}/model.onnx", "--engine", "onnxruntime", "--data", "val.npz", "--metric", "top1", "--json"
        )
        assert done.code == 0, done.err
        (one,) = json.loads(done.out)["candidates"]
        assert one["metrics"]["top1"] == pytest.approx(scores[f"{bits} bits"], abs=0.4)
        _check_codes(whole, made, bits)


def _check_codes(whole: onnx.ModelProto, made: onnx.ModelProto, bits: int) -> None:
    """The first and the last layer as they are, the others shifted."""
    codes, own = (
        {one.name: numpy_helper.to_array(one) for one in file.graph.initializer if "weight_quantized" in one.name}
        for file in (whole, made)
    )
    assert codes.keys() == own.keys()
    names = list(codes)
    most = max(int(held.astype(int).max()) for held in codes.values()).bit_length() + 1  # 7 where 8 would overflow
    for name in names:
        by = 0 if name in (names[0], names[-1]) else most - min(bits, most)
        half = 1 << most - 1 - by
        assert np.array_equal(own[name], shift(codes[name], by, -half, half - 1))


def test_layers_differ_in_width_within_a_budget(trained: Aware, folder: Path) -> None:
    words = "--switch", "8,4,2", "--mixed", "--validation", "val.npz", "--epochs", "4"
    assert trained.train(*words, out="mix").code == 0
    done = trained.convkit("switch", "mix/model.onnx", "--bops", "<=0.045x", "--json", "-o", "mixed")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert set(told["layers"].values()) <= {8, 4, 2}
    assert len(set(told["layers"].values())) > 1
    # 12x12 images, then 6x6; nine taps, twelve channels; activations in eight bits, as the engine has them.
    macs = {"0": 9 * 12 * 144, "3": 9 * 144 * 144, "7": 9 * 144 * 36, "10": 9 * 144 * 36, "15": 12 * 4}
    taken = sum(count * 8 * told["layers"].get(name, 8) for name, count in macs.items())
    assert 0.9 * 0.045 <= taken / sum(macs.values()) / 1024 <= 0.045
    made = onnx.load(folder / "mixed/model.onnx")
    onnx.checker.check_model(made, full_check=True)
    codes = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer if "weight_quantized" in one.name}
    for name, bits in told["layers"].items():
        (own,) = (held for key, held in codes.items() if key.startswith(f"{name}.weight"))
        assert -(2 ** (bits - 1)) <= own.min() < 0 < own.max() < 2 ** (bits - 1)
    done = trained.convkit("switch", "any/model.onnx", "--bops", "<=0.035x", "-o", "unmade")
    assert done.code == 2
    assert "train it with --mixed" in done.err
    done = trained.convkit("switch", "mix/model.onnx", "--bops", "<=0.001x", "-o", "unmade")
    assert done.code == 1
    assert "give at least" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("any/model.onnx",), "give --bits or --bops"),
        (("any/model.onnx", "--bits", "4", "--bops", "<=1x"), "give --bits or --bops"),
        (("any/model.onnx", "--bops", "few"), "is no budget"),
        (("any/model.onnx", "--bits", "5"), "no width of 5 bits; it has 8, 4, 2"),
        (("float/model.onnx", "--bits", "4"), "one width; `convkit train --switch"),
        (("any/model.onnx", "--bits", "9"), "--bits"),
        (("nowhere.onnx", "--bits", "4"), "nowhere.onnx"),
    ],
)
def test_what_cannot_be_made_is_one_line(words: tuple[str, ...], said: str, trained: Aware, folder: Path) -> None:
    if not (folder / "float/model.onnx").exists():
        done = trained.convkit("export", "aware_net:build", *aware_tests.WEIGHTS, "-o", "plain")
        assert done.code == 0, done.err
        (folder / "plain/model.onnx").rename(folder / "float/model.onnx")
    done = trained.convkit("switch", *words, "-o", "unmade")
    assert done.code == 2
    assert said in done.err
    assert not (folder / "unmade").exists()


def _shifts(told: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(told["widths"]["4"][1])


def _narrow(told: dict[str, Any], graph: object = None, shifts: object = None) -> dict[str, Any]:
    """With something else in the network of four bits."""
    whole, known = told["widths"]["4"]
    return told | {"widths": {"4": [whole if graph is None else graph, known if shifts is None else shifts]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told | {"version": 7}, "is of version 7"),
        (lambda told: {"version": 1}, "is damaged"),
        (lambda told: told | {"widths": [4]}, "is damaged"),
        (lambda told: told | {"widths": {"4": {}}}, "is damaged"),
        (lambda told: _narrow(told, graph=4), "is damaged"),
        (lambda told: _narrow(told, graph="eA=="), "of 4 bits is damaged"),
        (lambda told: _narrow(told, shifts={key: [9, 9] for key in _shifts(told)}), "4 bits is damaged"),
    ],
)
def test_what_is_damaged_is_told(
    change: Callable[[dict[str, Any]], dict[str, Any]], said: str, trained: Aware, folder: Path
) -> None:
    file = onnx.load(folder / "any/model.onnx")
    (entry,) = (one for one in file.metadata_props if one.key == switched.KEY)
    entry.value = json.dumps(change(json.loads(entry.value)))
    onnx.save(file, folder / "broken.onnx")
    done = trained.convkit("switch", "broken.onnx", "--bits", "4", "-o", "none")
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--switch", "8"), "--switch takes widths, there is one"),
        (("--switch", "8,16"), "'16' is none"),
        (("--switch", "8,4", "--precision", "int4"), "each say formats"),
        (("--switch", "8,4", "--shards", "2"), "--switch trains in one process"),
    ],
)
def test_what_cannot_be_switched_is_one_line(words: tuple[str, ...], said: str, aware: Aware, folder: Path) -> None:
    done = aware.train(*words, out="none")
    assert done.code == 2
    assert said in done.err
    assert not (folder / "none").exists()


def test_what_was_killed_goes_on_to_the_same_bytes(aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.compress.training import checkpoint

    words = "--switch", "8,4", "--epochs", "2"
    assert aware.train(*words, out="straight").code == 0
    keep = checkpoint.Checkpoint.keep

    def killed(self: checkpoint.Checkpoint, epoch: int, *kept: object) -> None:
        keep(self, epoch, *kept)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoint, "keep", killed)
        assert aware.train(*words, out="cut").code != 0
    done = aware.train(*words, "--resume", out="cut")
    assert done.code == 0, done.err
    assert (folder / "cut/model.onnx").read_bytes() == (folder / "straight/model.onnx").read_bytes()
