"""Exported programs: exact, free where they were free, and never trusted."""

import contextlib
import io
import json
import pickle  # noqa: TID251 - to write what convkit must refuse
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef, load, parse_shape
from tests.compress.sources.broken import InPlace, Nested, Several, Small
from tests.nets import regnet, unet


def export(module: nn.Module, path: Path, *inputs: torch.Tensor, free: tuple[int, ...] = ()) -> Path:
    dims = tuple(dict.fromkeys(free, Dim.DYNAMIC) for _ in inputs)
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=dims, strict=False), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    torch.manual_seed(0)
    return export(Small(), path, torch.randn(2, 3, 8, 8), free=(0, 2, 3)).read_bytes()


def refusal(path: Path, **shapes: Any) -> str:
    with pytest.raises(ConvkitError) as caught:
        load(ModelRef(str(path), shapes=shapes))
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_a_net_with_free_sizes_is_its_source(tmp_path: Path) -> None:
    net = unet.net(4, 1)
    model = load(ModelRef(str(export(net, tmp_path / "unet.pt2", torch.randn(2, 3, 32, 48), free=(0, 2, 3)))))
    x = torch.randn(3, 3, 37, 50)
    with torch.no_grad():
        torch.testing.assert_close(model({"x": x})["output"], net(x), rtol=1e-5, atol=1e-5)
    assert model.inputs[0].shape == ("N", 3, "height", "width")
    assert model.inputs[0].sample == (1, 3, 32, 48)
    assert model.outputs[0].shape == ("N", 2, "height", "width")


def test_names_and_digest_stay(tmp_path: Path) -> None:
    net = regnet.net((1, 1), (8, 16), 5)
    path = export(net, tmp_path / "regnet.pt2", torch.randn(1, 3, 32, 32))
    model = load(ModelRef(str(path)))
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    assert sorted(node.target for node in model.graph.graph.nodes if node.op == "call_module") == sorted(layers)
    assert model.name == "regnet"
    assert model.digest == load(ModelRef(str(path))).digest
    assert model.inputs[0].shape == (1, 3, 32, 32)


def test_inputs_outputs_and_in_place_writes(tmp_path: Path) -> None:
    x, skip = torch.randn(2, 3), torch.randn(2, 3)
    several = load(ModelRef(str(export(Several(), tmp_path / "several.pt2", x, skip, free=(0,)))))
    assert [spec.name for spec in several.inputs] == ["x", "skip"]
    assert list(several({"x": x, "skip": skip})) == ["output", "output_1", "output_2"]
    nested = load(ModelRef(str(export(Nested(), tmp_path / "nested.pt2", x))))
    assert list(nested({"input": x})) == ["logits", "features_0", "features_1"]
    image = torch.randn(2, 3, 4, 5)
    written = load(ModelRef(str(export(InPlace(), tmp_path / "written.pt2", image))))
    torch.testing.assert_close(written({"x": image})["output"], InPlace()(image.clone()))


def test_shapes_name_free_sizes(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "small.pt2"
    path.write_bytes(small)
    model = load(ModelRef(str(path), shapes=dict([parse_shape("x:Bx3xH=16xW=12")])))
    assert (model.inputs[0].shape, model.inputs[0].sample) == (("B", 3, "H", "W"), (1, 3, 16, 12))
    assert "is freex3xfreexfree in the program, not 1x4x8x8" in _wrong_shape(path, "x:1x4x8x8")
    assert "has no input 'y'; its inputs are: x" in _wrong_shape(path, "y:1x3x8x8")


@pytest.mark.parametrize(("more", "sample"), [(0, (1, 3, 96, 64)), (1, (1, 3, 97, 64))])
def test_a_size_that_is_a_multiple_of_a_free_one(tmp_path: Path, more: int, sample: tuple[int, ...]) -> None:
    """The samples are of the input's sizes, not of the number that these are 32 times."""
    net, path = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)).eval(), tmp_path / "net.pt2"
    dims = ({0: Dim("n"), 2: 32 * Dim("h", max=99) + more},)
    torch.export.save(torch.export.export(net, (torch.zeros(2, *sample[1:]),), dynamic_shapes=dims), path)
    assert load(ModelRef(str(path))).inputs[0].sample == sample
    told = load(ModelRef(str(path), shapes=dict([parse_shape(f"input:Bx3xH={128 + more}x64")])))
    assert told.inputs[0].sample == (1, 3, 128 + more, 64)
    x = torch.randn(3, 3, 64 + more, 64)
    with torch.no_grad():
        torch.testing.assert_close(told({"input": x})["output"], net(x), rtol=1e-5, atol=1e-5)
    assert f"100 is no size of input 'input', which is 32*H{' + 1' * more};" in _wrong_shape(path, "input:Bx3xH=100x64")


def test_a_batch_that_is_a_multiple_of_a_free_one(tmp_path: Path) -> None:
    net, path = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), tmp_path / "net.pt2"
    dims = ({0: 2 * Dim("n", max=99)},)
    torch.export.save(torch.export.export(net, (torch.zeros(6, 3, 8, 8),), dynamic_shapes=dims), path)
    assert load(ModelRef(str(path))).inputs[0].sample == (2, 3, 8, 8)


def _wrong_shape(path: Path, shape: str) -> str:
    with pytest.raises(ConvkitError) as caught:
        load(ModelRef(str(path), shapes=dict([parse_shape(shape)])))
    return str(caught.value)


def test_training_mode_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(Small().train(), (torch.randn(2, 3, 8, 8),), strict=False)
    torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(ConvkitError, match=r"model.eval\(\)"):
        load(ModelRef(str(tmp_path / "train.pt2")))


def test_files_that_are_none(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "net.pt2"
    assert "cannot be read" in refusal(path)
    for data, words in ((b"", "is empty"), (b"hello", "is no archive"), (small[:3000], "is broken")):
        path.write_bytes(data)
        assert words in refusal(path)
    torch.save(Small().state_dict(), path)
    assert "is broken" in refusal(path)


def changed(data: bytes, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with its records edited, written the way torch writes it: stored, not compressed."""
    source = zipfile.ZipFile(io.BytesIO(data))
    root = source.namelist()[0].partition("/")[0]
    records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    edit(records)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(f"{root}/{name}", record)
    return target.getvalue()


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def replaced(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def edit(records: dict[str, bytes]) -> None:
        text = records["models/model.json"].decode()
        assert old in text
        records["models/model.json"] = text.replace(old, new).encode()

    return edit


def attacks(mark: Path) -> dict[str, Callable[[dict[str, bytes]], None]]:
    buffer = io.BytesIO()
    torch.save((Evil(mark),), buffer)
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    in_name = json.dumps(f'x"+{code}+"')[1:-1]

    def weights(records: dict[str, bytes]) -> None:
        config = records["data/weights/model_weights_config.json"].decode()
        records["data/weights/model_weights_config.json"] = config.replace(
            '"use_pickle": false', '"use_pickle": true'
        ).encode()
        records["data/weights/weight_0"] = buffer.getvalue()

    return {
        "sample inputs": lambda records: records.update({"data/sample_inputs/model.pt": buffer.getvalue()}),
        "raw pickle": lambda records: records.update({"data/sample_inputs/model.pt": pickle.dumps((Evil(mark),))}),
        "weights": weights,
        "legacy weights": lambda records: (
            records.update({"data/weights/model.pt": buffer.getvalue()})
            or (records.pop("data/weights/model_weights_config.json") and None)
        ),
        "compiled": lambda records: records.update({"data/aotinductor/model/a.so": b"\x7fELF"}),
        "formula": replaced("Symbol('s", f"{code} or Symbol('s"),
        "target": replaced("torch.ops.aten.relu.default", "torch.hub.load"),
        "operator": replaced("torch.ops.aten.relu.default", "_operator.call"),
        "name": replaced('"conv.weight"', f'"{in_name}"'),
        "guard": replaced('"guards_code": [', f'"guards_code": ["{code}", '),
    }


@pytest.mark.parametrize("kind", attacks(Path("none")))
def test_nothing_in_a_file_is_run(tmp_path: Path, small: bytes, kind: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pt2"
    path.write_bytes(changed(small, attacks(mark)[kind]))
    if kind == "guard":
        load(ModelRef(str(path)))
    else:
        refusal(path)
    assert not mark.exists()


def test_an_archive_written_anew_still_loads(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "same.pt2"
    path.write_bytes(changed(small, lambda records: None))
    load(ModelRef(str(path)))


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out or doubled; half the time inside the program, where the archive stays whole."""
    if chance.random() < 0.5:
        return bytes(_noise(bytearray(data), chance))

    def edit(records: dict[str, bytes]) -> None:
        name = chance.choice(["models/model.json", "models/model.json", *records])
        records[name] = bytes(_noise(bytearray(records[name]), chance))

    return changed(data, edit)


def _noise(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(max(len(data), 1))
        kind = chance.random()
        if kind < 0.6 and data:
            data[place] = chance.choice(b'0123456789-nulltrue"[]{},\x00\xff') if kind < 0.4 else chance.randrange(256)
        elif kind < 0.8:
            del data[place : place + chance.randint(1, 40)]
        else:
            data[place:place] = data[place : place + chance.randint(1, 40)]
    return data


@pytest.mark.parametrize("seed", range(60))
def test_mutated_files_load_or_are_refused(tmp_path: Path, small: bytes, seed: int) -> None:
    path = tmp_path / "mutated.pt2"
    path.write_bytes(_mutated(small, random.Random(seed)))
    with contextlib.suppress(ConvkitError):
        load(ModelRef(str(path)))
