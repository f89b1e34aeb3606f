"""`convkit quantize --precision … --method …`: every layer in the formats that are asked for, rounded as asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from convkit.cli import batches, quantizing
from convkit.cli.goodness import Limits
from convkit.compress import target as targets
from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.compress.plan import Plan
from convkit.compress.search import remedies, space
from tests.cli import quantizable
from tests.cli.commands.test_quantize_bad_input import refused
from tests.cli.quantizable import Quantize, candidates, job
from tests.command_line import Convkit

TARGET = targets.load("onnxruntime-cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("quantize"))


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path) -> Quantize:
    return quantizable.command(convkit, folder, tmp_path / "out")


def tried(folder: Path, **changes: object) -> list[tuple[str, Plan]]:
    work = replace(job(folder), **changes)  # type: ignore[arg-type]
    task = quantizing.task(work, *batches.split(work.data, work.seed))
    return [(attempt.remedy, attempt.plan) for attempt in remedies.attempts(task)]


@pytest.mark.parametrize(
    ("text", "weight", "activation"),
    [
        ("int4", {"int4"}, "uint8"),
        ("int4/uint8", {"int4"}, "uint8"),
        ("int5/fp32", {"int5"}, "fp32"),
        ("fp8_e4m3", {"fp8_e4m3"}, "fp8_e4m3"),
        ("e3m2", {"e3m2"}, "fp32"),
        ("fp6", {"e1m4", "e2m3"}, "fp32"),
        ("fp6/uint8", {"e1m4", "e2m3"}, "uint8"),
    ],
)
def test_every_layer_in_the_formats_asked_for(folder: Path, text: str, weight: set[str], activation: str) -> None:
    (remedy, plan), *_ = tried(folder, precision=space.precision(text, TARGET)[0])
    weighted = [layer for layer in plan.layers.values() if layer.weight is not None]
    others = [layer for layer in plan.layers.values() if layer.weight is None]
    assert len(weighted) == 5
    assert {layer.weight for layer in weighted} == weight
    assert {layer.activation for layer in weighted} == {activation}
    assert bool(others) == (activation == "uint8")
    assert remedy == remedies.REMEDIES[0].name


def test_the_methods_asked_for_in_place_of_the_usual(folder: Path) -> None:
    (remedy, plan), *_ = tried(folder, methods=("norm_reestimation", "equalize", "learned_round"))
    assert remedy == "measured ranges, equalize, norm_reestimation, learned_round"
    assert plan.methods == (
        "simplify",
        "fold_batch_norm",
        "merge_parallel",
        "equalize",
        "norm_reestimation",
        "learned_round",
    )


def test_layers_go_back_to_float_where_what_is_asked_for_is_not_good(folder: Path) -> None:
    found = tried(folder, precision=Option("int2", "uint8"), methods=("bias_correction",), limits=Limits(5, 40))
    assert len(found) > 1
    assert all(layer.weight in {None, "int2"} for _, plan in found for layer in plan.layers.values())
    assert len(found[-1][1].layers) < len(found[0][1].layers)


def test_every_placement_keeps_to_it(folder: Path, tmp_path: Path) -> None:
    work = job(folder, precision=Option("int4", "uint8"), methods=("learned_round",))
    made = candidates(work, tmp_path / "made")
    assert made
    for text, _ in made.values():
        assert "fold_batch_norm, merge_parallel, learned_round" in text
        assert "weight: int8" not in text
        assert "weight: int4" in text


def test_the_command(quantize: Quantize, tmp_path: Path) -> None:
    done = quantize("--precision", "int4", "--method", "block_round", "--max-drop", "50", "--min-sqnr", "1")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [attempt["remedy"] for attempt in report["attempts"]] == ["measured ranges, block_round"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("int4/int3", "Activations in int3 run in uint8 on onnxruntime-cpu. int4 weights are packed in the file"),
        ("fp6/int3", "in uint8 on onnxruntime-cpu. fp6 only saves storage on onnxruntime-cpu: fp6/uint8 computes in"),
    ],
)
def test_what_runs_in_other_formats_than_asked_for_is_said(quantize: Quantize, text: str, note: str) -> None:
    done = quantize("--precision", text, "--dry-run")
    assert done.code == 0
    assert note in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "learned_rund"), "no method is called 'learned_rund'; did you mean 'learned_round'?"),
        (("--precision", "int44"), "no format is called 'int44'; did you mean 'int4'?"),
        (("--precision", "int4/uint88"), "no format is called 'uint88'; did you mean 'uint8'?"),
        (("--precision", "uint8"), "uint8 is no format of weights"),
        (("--precision", "int4", "--formats", "int8"), "have the format of each layer searched"),
        (("--precision", "int4", "--tables", "out"), "--tables has the format of each layer searched"),
        (("--method", "learned_round", "--tables", "out"), "--tables has the format of each layer searched"),
        (("--method", "learned_round", "--size", "<=0.3x"), "have the format of each layer searched"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    quantize: Quantize, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    refused(quantize(*words), tmp_path / "out", message)


def test_a_plan_says_it_already(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(candidates(job(folder), tmp_path / "made")["everything"][0])
    for words in (("--precision", "int4"), ("--method", "learned_round")):
        done = quantize("--plan", str(tmp_path / "plan.yaml"), *words)
        refused(done, tmp_path / "out", "--plan says formats and methods already")


def test_a_format_that_the_target_lacks_runs_as_the_target_says() -> None:
    assert space.precision("bf16", TARGET)[0].weight == "bf16"
    with pytest.raises(ConvkitError, match="no format"):
        space.precision("fp9", TARGET)
