"""`convkit shrink` of a trained network: channels that others can stand for go, the rest stays.

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose every second channel is that before it again, and one that has none such."""
    made = tmp_path_factory.mktemp("shrink")
    heavy(made / "full.onnx")
    doubled(made / "full.onnx", made / "doubled.onnx")
    x = np.random.default_rng(0).standard_normal((16, 8, 16, 16)).astype(np.float32)
    np.savez(made / "calib.npz", x=x)
    return made


def doubled(source: Path, path: Path) -> None:
    proto = onnx.load(source)
    last = max(tensor.name for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if len(tensor.dims) in (1, 4) and tensor.name != last and len(values) > 8:
            values[1::2] = values[::2]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)


@pytest.fixture
def shrink(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smaller:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steady.install(monkeypatch)
    return Smaller("shrink", "doubled.onnx", convkit, folder, tmp_path / "out")


def test_channels_that_others_stand_for_go(shrink: Smaller, tmp_path: Path) -> None:
    done = shrink("--latency", "<=0.5x")
    assert done.code == 0, done.err
    assert "(it is an output of the network)" in done.err.partition("these keep all their channels: ")[2]
    plan = plans.read(shrink.out / "plan.yaml")
    assert plan.widths
    assert not plan.layers
    assert shrink.report()["verdict"] == "narrowed"
    whole, made = shrink.folder / "doubled.onnx", shrink.out / "model.onnx"
    assert made.stat().st_size <= 0.5 * whole.stat().st_size
    wanted, found = shrink.outputs(whole), shrink.outputs(made)
    assert np.square(found - wanted).sum() <= 1e-2 * np.square(wanted).sum()
    places = shrink.places("doubled.onnx")
    again = shrink.convkit("export", *places, "--plan", str(shrink.out / "plan.yaml"), "-o", str(tmp_path / "again"))
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "model.onnx").read_bytes() == made.read_bytes()


def test_widths_forms_and_formats_are_chosen_together(shrink: Smaller) -> None:
    """A size that none of them reaches alone."""
    done = shrink("--formats", "int8", "--forms", "tucker2", "--size", "<=0.12x")
    assert done.code == 0, done.err
    plan = plans.read(shrink.out / "plan.yaml")
    assert plan.widths
    assert plan.layers
    made, whole = shrink.out / "model.onnx", shrink.folder / "doubled.onnx"
    assert made.stat().st_size <= 0.12 * whole.stat().st_size


def test_a_network_that_needs_its_channels_keeps_them(shrink: Smaller) -> None:
    done = shrink("--min-sqnr", "40", net="full.onnx")
    assert done.code == 0, done.err
    assert shrink.report()["verdict"] == "kept float"
    assert (shrink.out / "model.onnx").read_bytes() == (shrink.folder / "full.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--forms", "cpp"), "no form is called 'cpp'"),
        (("--size", "<=3ms"), "--size"),
        (("--step", "0"), "--step"),
        (("--tables", "tables.json"), "no such option"),
    ],
)
def test_what_cannot_be_is_told(words: tuple[str, ...], told: str, shrink: Smaller) -> None:
    done = shrink(*words)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not shrink.out.exists()


def test_a_width_that_cannot_be_is_told(shrink: Smaller, tmp_path: Path) -> None:
    """Of a plan that was edited by hand."""
    assert shrink("--latency", "<=0.5x").code == 0
    text = (shrink.out / "plan.yaml").read_text()
    name, width = next(iter(plans.read(shrink.out / "plan.yaml").widths.items()))
    edited = tmp_path / "edited.yaml"
    edited.write_text(text.replace(f'"{name}": {width}', f'"{name}": 100000'))
    places = shrink.places("doubled.onnx")
    done = shrink.convkit("export", *places, "--plan", str(edited), "-o", str(tmp_path / "wrong"))
    assert done.code == 2
    assert f"{name!r} cannot be 100000 wide" in done.err
