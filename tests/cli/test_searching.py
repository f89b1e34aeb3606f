"""`convkit quantize --formats …`: the format of each layer, searched under a budget on the real engine."""

import json
from pathlib import Path

import onnx
import pytest

from convkit.compress import plan as plans
from tests.cli import quantizable
from tests.cli.commands.test_quantize import heavy_and_samples
from tests.cli.quantizable import Quantize
from tests.command_line import Convkit

FILES = ["front.png", "front.svg", "layers.png", "layers.svg", "manifest.json", "model.onnx", "plan.yaml"]
HEAVY = {"model": "heavy.onnx", "data": "heavy.npz"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = quantizable.write(tmp_path_factory.mktemp("search"))
    heavy_and_samples(made / "heavy.onnx", made / "heavy.npz")
    return made


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return quantizable.command(convkit, folder, tmp_path / "out")


def test_a_size_that_only_four_bits_reach_is_reached_with_them(
    quantize: Quantize, convkit: Convkit, folder: Path, tmp_path: Path
) -> None:
    found = quantize("--formats", "int8,int4", "--size", "<=0.22x", "--min-sqnr", "5", **HEAVY)
    assert found.code == 0, found.err
    assert "of those within the budget, the best by SQNR" in " ".join(found.out.split())
    assert "original (over budget)" in found.out
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, "report.json", "tables.json"])
    layers = plans.read(out / "plan.yaml").layers
    assert "int4" in {layer.weight for layer in layers.values()}
    assert (out / "model.onnx").stat().st_size <= 0.22 * (folder / "heavy.onnx").stat().st_size
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    again = convkit(
        *("export", "-m", str(folder / "heavy.onnx"), "--target", "onnxruntime-cpu", "--plan", str(out / "plan.yaml")),
        *("--data", str(folder / "heavy.npz"), "-o", str(tmp_path / "again")),
    )
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


def test_a_budget_out_of_reach_ends_with_the_nearest_network_and_budget(quantize: Quantize, tmp_path: Path) -> None:
    found = quantize("--formats", "int8", "--bops", "<=0.01x", **HEAVY)
    assert found.code == 1
    assert "--bops '<=0.01x' is out of reach here; the nearest is --bops '<=0." in found.err
    assert "none is within the budget; of those nearest to it, the best by SQNR" in " ".join(found.out.split())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["search"]["missed"]
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--formats", "int9"), "int9"),
        (("--formats", "uint8"), "uint8 is no format to search weights in"),
        (("--formats", "int8,bf16"), "bf16 is no format to search weights in"),
        (("--latency", "4MB"), "--latency '4MB'"),
        (("--size", "0"), "--size"),
        (("--bops", "fast"), "--bops 'fast' is no budget"),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_line(
    quantize: Quantize, tmp_path: Path, words: tuple[str, ...], error: str
) -> None:
    found = quantize(*words)
    assert found.code == 2
    assert error in found.err
    assert len(found.err.strip().splitlines()[-1]) < 400
    assert not (tmp_path / "out").exists()
