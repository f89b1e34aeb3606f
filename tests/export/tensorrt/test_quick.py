"""Kernels as plugins whose code the engine holds: what `tensorrt.plugin` is handed, for devices that are not here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import triton

from convkit.compress.errors import ConvkitError
from convkit.export import kernel as kernels
from convkit.export import kernels as nodes
from convkit.export.compiled import Assembly, assembly
from convkit.export.functions import titled
from convkit.export.kernel import OUTPUT, Call, Kernel
from convkit.export.tensorrt import asserted, kernel_plugin, package, quick
from convkit.export.tensorrt.request import Settings
from convkit.runtimes.session import open_session
from tests.compress.convs.test_convs import CLOSE, FOLDS, inputs, made
from tests.export.ops.test_kernels import SMS, types
from tests.export.tensorrt.deployed import READ
from tests.export.test_functions import written

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
QUICK = [name for name in kernels.names() if quick.takes(kernels.load(name))]


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str], Any] = {}

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        assert version == "1"
        return self.creators.get((namespace, name))

    def register_creator(self, creator: Any, namespace: str) -> None:
        self.creators[namespace, creator.name] = creator


class Trt:
    """A package that has a registry and no more."""

    def __init__(self) -> None:
        self.registry = Registry()

    def get_plugin_registry(self) -> Registry:
        return self.registry


@pytest.fixture(params=QUICK)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_one_launch_is_taken() -> None:
    assert QUICK == ["conv_first", "deform_conv", "evonorm", "long_conv", "tap_conv", "time_norm"]


def parameters(one: Assembly, sm: int, folder: Path) -> list[int]:
    """Bytes of what the function takes, in its order, as NVIDIA's assembler reads them."""
    (folder / "code.ptx").write_text(one.text)
    target = re.findall(r"^\.target (\w+)", one.text, re.MULTILINE)
    assert target == [f"sm_{sm}a" if sm >= 90 else f"sm_{sm}"]
    subprocess.run(
        [TOOLS / "ptxas", f"-arch={target[0]}", folder / "code.ptx", "-o", folder / "code.cubin"], check=True
    )
    said = subprocess.run(
        [TOOLS / "cuobjdump", "-elf", folder / "code.cubin"], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"Ordinal\s*:\s*(0x[0-9a-f]+)\s*Offset\s*:\s*(0x[0-9a-f]+)\s*Size\s*:\s*(0x[0-9a-f]+)", said)
    ordered = sorted((int(ordinal, 16), int(offset, 16), int(size, 16)) for ordinal, offset, size in found)
    assert [offset for _, offset, _ in ordered] == sorted(offset for _, offset, _ in ordered)
    return [size for _, _, size in ordered]


@pytest.mark.parametrize("sm", SMS)
def test_functions_take_tensors_sizes_and_what_they_make_in_that_order(name: str, sm: int, tmp_path: Path) -> None:
    kernel = kernels.load(name)
    case, (stage,) = kernel.usual(), kernel.stages
    call = kernel.call(case)
    one = assembly(stage, call, types(kernel, case, "float16"), sm)
    sizes = len(stage.launch(call).scalars)
    assert parameters(one, sm, tmp_path) == [8] * len(kernel.tensors) + [4] * sizes + [8]
    assert not re.search(r"^\t\.(loc|file)", one.text, re.MULTILINE), "a path of this machine"
    declared = re.findall(r"^\t\.param \S+.* (\w+),?$", one.text, re.MULTILINE)
    last = stage.tensors.index(OUTPUT)
    assert declared[-1] == f"{one.name}_param_{last}"
    assert sorted(declared) == sorted(f"{one.name}_param_{place}" for place in range(len(declared)))


def deployed(name: str, sm: int, folder: Path) -> list[dict[str, Any]]:
    """What `tensorrt.plugin` makes of it; the parser opens its library by a name that the package lacks."""
    for library in package.libraries("tensorrt_rtx"):
        (folder / "libtensorrt_rtx.so").symlink_to(library)
    command = [sys.executable, "-m", "tests.export.tensorrt.deployed", name, str(sm)]
    paths = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])  # the package writes there, too
    return found


def test_tensorrt_takes_it_and_launches_it_as_its_sizes_ask(name: str, tmp_path: Path) -> None:
    """With known sizes; and with a free batch, of which hangs what another batch would change and no more."""
    kernel = kernels.load(name)
    cases, found = list(kernel.cases()), deployed(name, 89, tmp_path)
    for number, case in enumerate(cases):
        call, (stage,) = kernel.call(case), kernel.stages
        wanted, more = told(kernel, call), told(kernel, batched(call))
        free = {key: [a if a == b else None for a, b in zip(wanted[key], more[key], strict=True)] for key in wanted}
        assert wanted != free
        for one, sizes in ((found[number], wanted), (found[len(cases) + number], free)):
            assert {key: one[key] for key in sizes} == sizes
            assert one["block"] == [32 * stage.warps, 1, 1]
            assert one["types"]
            assert one["function"]
            assert one["tactics"] == []
            assert 0 <= one["shared"] < 48 * 1024


def told(kernel: Kernel, call: Call) -> dict[str, list[int]]:
    launch = kernel.stages[0].launch(call)
    return {
        "shape": list(call.shapes[OUTPUT]),
        "grid": [*launch.grid, 1, 1][:3],
        "sizes": list(launch.scalars),
    }


def batched(call: Call) -> Call:
    """The call with a batch so much larger that it takes more programs of every kernel."""
    shapes = {
        key: [64 * shape[0], *shape[1:]] if key in (*READ, OUTPUT) else shape for key, shape in call.shapes.items()
    }
    return Call(shapes, call.attributes)


def test_a_type_that_has_no_code_is_told() -> None:
    with pytest.raises(ConvkitError, match="kernel evonorm has no code for x in int8, y in int8"):
        quick.check("evonorm", kernels.load("evonorm"), {"x": "int8", "y": "int8"})


def test_each_kernel_is_registered_once_and_by_what_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = Trt()
    taken: list[str] = []
    monkeypatch.setattr(quick, "module", lambda _: trt)

    def take(_: Trt, __: Trt, name: str, ___: int) -> None:
        taken.append(name)
        trt.registry.register_creator(SimpleNamespace(name=titled(name)), "convkit")

    monkeypatch.setattr(quick, "register", take)
    monkeypatch.setattr(kernel_plugin, "_creator", lambda _, name, __: SimpleNamespace(name=titled(name)))
    for _ in range(2):
        kernel_plugin.register(trt, sm=89)
    assert set(trt.registry.creators) == {("convkit", titled(name)) for name in kernels.names()}
    assert taken == QUICK


def test_a_package_without_it_is_left_alone() -> None:
    assert quick.module(package.load("tensorrt_rtx")) is None


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("conv", "name"), [("evonorm", "evonorm"), ("sgconv", "long_conv"), ("time_norm", "time_norm")]
)
def test_engines_run_without_python(conv: str, name: str, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt")
    if quick.module(trt) is None:
        pytest.skip("this tensorrt has no ahead-of-time plugins")
    example = made(conv)[0]
    model = written(example, "tensorrt", methods=FOLDS)
    nodes.with_kernels(model, [name])
    onnx.save(model, tmp_path / "net.onnx")
    found = asserted.build_and_assert("tensorrt", tmp_path / "net.onnx", Settings())
    assert b'"binaries"' not in found.built.engine
    (tmp_path / "net.trt").write_bytes(found.built.engine)
    given = {key: tensor.numpy() for key, tensor in inputs(example, 1).items()}
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]
    (output,) = open_session("tensorrt", str(tmp_path / "net.trt")).run(given).values()
    assert abs(output - wanted).max() <= 10 * CLOSE * abs(wanted).max()
