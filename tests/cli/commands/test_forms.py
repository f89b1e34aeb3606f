"""`convkit factorize` of a trained network: layers in forms, by accuracy and time, alone and together with formats.

The engine's time is the size of the file here, so that nothing is chance.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convkit.compress import plan as plans
from tests.cli import steady
from tests.cli.commands.test_quantize import heavy
from tests.cli.smaller import Smaller
from tests.command_line import Convkit

RANK = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks: the kernels of one are of few directions, those of the other of all that there are."""
    made = tmp_path_factory.mktemp("forms")
    heavy(made / "full.onnx")
    thin(made / "full.onnx", made / "thin.onnx")
    x = np.random.default_rng(0).standard_normal((16, 8, 16, 16)).astype(np.float32)
    np.savez(made / "calib.npz", x=x)
    return made


def thin(source: Path, path: Path) -> None:
    proto = onnx.load(source)
    for tensor in proto.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 4 and weight[0].size > 2 * RANK:
            u, s, v = np.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
            few = (u[:, :RANK] * s[:RANK]) @ v[:RANK]
            tensor.CopyFrom(numpy_helper.from_array(few.reshape(weight.shape).astype(np.float32), tensor.name))
    onnx.save(proto, path)


@pytest.fixture
def factorize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smaller:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steady.install(monkeypatch)
    return Smaller("factorize", "thin.onnx", convkit, folder, tmp_path / "out")


def test_kernels_of_few_directions_become_chains(factorize: Smaller, tmp_path: Path) -> None:
    done = factorize("--size", "<=0.5x")
    assert done.code == 0, done.err
    plan = plans.read(factorize.out / "plan.yaml")
    assert plan.forms
    assert not plan.layers
    assert factorize.report()["verdict"] == "factorized"
    whole, made = factorize.folder / "thin.onnx", factorize.out / "model.onnx"
    assert made.stat().st_size <= 0.5 * whole.stat().st_size
    wanted, found = factorize.outputs(whole), factorize.outputs(made)
    assert np.square(found - wanted).sum() <= 1e-4 * np.square(wanted).sum()
    again = factorize.convkit(
        "export",
        *factorize.places("thin.onnx"),
        "--plan",
        str(factorize.out / "plan.yaml"),
        "-o",
        str(tmp_path / "again"),
    )
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "model.onnx").read_bytes() == made.read_bytes()


def test_forms_and_formats_are_chosen_together(factorize: Smaller) -> None:
    """A size that neither reaches alone."""
    done = factorize("--formats", "int8", "--size", "<=0.15x")
    assert done.code == 0, done.err
    plan = plans.read(factorize.out / "plan.yaml")
    assert plan.forms
    assert any({f"{name}.0", f"{name}.1"} <= plan.layers.keys() for name in plan.forms)  # the first may stay in float
    assert factorize.report()["verdict"] == "factorized and quantized"
    whole, made = factorize.folder / "thin.onnx", factorize.out / "model.onnx"
    assert made.stat().st_size <= 0.15 * whole.stat().st_size
    wanted, found = factorize.outputs(whole), factorize.outputs(made)
    assert np.square(found - wanted).sum() <= 0.02 * np.square(wanted).sum()


def test_kernels_of_many_directions_stay_as_they_are(factorize: Smaller) -> None:
    done = factorize("--min-sqnr", "60", net="full.onnx")
    assert done.code == 0, done.err
    assert factorize.report()["verdict"] == "kept float"
    assert (factorize.out / "model.onnx").read_bytes() == (factorize.folder / "full.onnx").read_bytes()


def test_the_forms_to_choose_among_are_those_asked_for(factorize: Smaller) -> None:
    done = factorize("--form", "tucker2", "--size", "<=0.5x")
    assert done.code == 0, done.err
    assert {text.partition(":")[0] for text in plans.read(factorize.out / "plan.yaml").forms.values()} == {"tucker2"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--form", "cpp"), "no form is called 'cpp'"),
        (("--params", "<=15%"), "--params is asked of a network before training"),
        (("--apriori",), "before training there is nothing to measure; leave out --data"),
        (("--apriori", "--keep", "Conv"), "leave out --data, --keep"),
        (("--size", "<=3ms"), "--size"),
        (("--tables", "tables.json"), "no such option"),
    ],
)
def test_what_cannot_be_is_told(words: tuple[str, ...], told: str, factorize: Smaller) -> None:
    done = factorize(*words)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not factorize.out.exists()
