"""Every kernel: in Triton's interpreter beside its reference, and compiled for GPUs that are not here."""

import json
import os
import subprocess
import sys

import pytest
import torch

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.export import compiled
from convkit.export import kernel as kernels
from convkit.export.kernel import FREE, OUTPUT, Call, Case, Kernel
from tests.export.ops.interpreted import BY_TYPE, coarsest

SMS = (75, 80, 86, 89, 90, 120)


@pytest.fixture(params=kernels.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def types(kernel: Kernel, case: Case, kind: str) -> dict[str, str]:
    own = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in case.tensors.items()}
    return {key: own[key] if key in kernel.mixed else kind for key in own} | {OUTPUT: kind}


def test_the_interpreter_gives_what_the_reference_gives(name: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.export.ops.interpreted", name]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 6
    for number, kind, off in found:
        assert off is not None, f"case {number}: another shape"
        assert off <= BY_TYPE[kind], f"case {number} in {kind}"


def test_it_compiles_for_every_device(name: str, request: pytest.FixtureRequest) -> None:
    """In every type, and with the registers that its table tells; `--regenerate` writes them."""
    kernel = kernels.load(name)
    case = kernel.usual()
    used: dict[str, compiled.Usage] = {}
    for sm in SMS:
        for kind in kernel.types if sm == 80 else ("float16",):
            binaries = compiled.compiled(kernel, kernel.call(case), types(kernel, case, kind), sm)
            assert all(binary.code[:4] == b"\x7fELF" for binary in binaries)
            if kind == "float16":
                used[str(sm)] = max(map(compiled.usage, binaries), key=lambda one: (one.spilled, one.registers))
    found = {"registers": {sm: one.registers for sm, one in used.items()},
             "spilled": {sm: one.spilled for sm, one in used.items()}}  # fmt: skip
    told = kernels.proven(name)
    if request.config.getoption("--regenerate"):
        file = parts.path(kernels.FOLDER, name, kernels.FILE).with_name(kernels.PROVEN)
        file.write_text(json.dumps({"convs": list(told.convs) if told else []} | found, indent=2) + "\n")
        return
    assert told is not None
    assert {"registers": told.registers, "spilled": told.spilled} == found
    assert not any(size for sm, size in told.spilled.items() if sm != "75"), (
        "sums in fp16 take twice as many there only"
    )


def test_free_sizes_decide_nothing_that_is_compiled(name: str) -> None:
    """The batch, and the sizes of what is read that no weight has."""
    kernel = kernels.load(name)
    for case in kernel.cases():
        call = kernel.call(case)
        known = set(call.shapes["x"][1:2]) if len(call.shapes["x"]) > 3 else set(call.shapes["x"][1:])
        free = {
            key: tuple(size if size in known and axis else FREE for axis, size in enumerate(shape))
            for key, shape in call.shapes.items()
            if key in ("x", "offset", "mask", OUTPUT)
        }
        open_call = Call({**call.shapes, **free}, call.attributes)
        assert [stage.constants(open_call) for stage in kernel.stages] == [s.constants(call) for s in kernel.stages]


def test_the_floor_counts_every_tensor_once(name: str) -> None:
    kernel = kernels.load(name)
    case = next(iter(kernel.cases()))
    made = kernel.reference(case.tensors, case.attributes)
    floor = kernel.floor(case)
    assert floor.bytes == sum(tensor.nbytes for tensor in case.tensors.values()) + made.nbytes
    assert (floor.macs > 0) == kernel.multiplies or name == "tap_conv"
    assert tuple(made.shape) == tuple(kernel.call(case).shapes[OUTPUT])


def test_users_of_torch_get_the_same(name: str) -> None:
    """What the bench compares with."""
    kernel = kernels.load(name)
    for case in kernel.cases():
        wanted = kernel.reference(case.tensors, case.attributes)
        made = kernel.plain(case)()
        assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_products_are_counted_as_they_are() -> None:
    """Beside the shapes' own arithmetic, by hand."""
    counts = {name: kernels.load(name).floor(kernels.load(name).usual()).macs for name in kernels.names()}
    assert counts["tap_conv"] == 16 * 192 * 28 * 28 * 169
    assert counts["long_conv"] == 4 * 256 * (4096 * 4097 // 2)
    assert counts["conv_first"] == 16 * 56 * 56 * (64 * 8 * 9 + 2 * 4 * 64 * 64)
    assert counts["mbconv"] == 16 * 56 * 56 * (2 * 64 * 256 + 256 * 8 * 9)
    assert counts["deform_conv"] == 4 * 64 * 64 * 9 * 128 * (128 + 4)
    assert not any(counts[name] for name in ("evonorm", "grn", "channel_gate", "strip_gate", "time_norm"))


def test_a_kernel_that_is_not_there_is_told() -> None:
    with pytest.raises(ConvkitError, match="no op is called 'tapconv'") as caught:
        kernels.load("tapconv")
    assert "tap_conv" in caught.value.hint


def test_without_triton_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotAvailableError, match="Triton is not installed") as caught:
        kernels.load("grn")
    assert caught.value.hint == "pip install 'convkit[kernels]'"


def test_every_op_says_what_it_is() -> None:
    assert all(parts.about(kernels.FOLDER, name, kernels.FILE) for name in kernels.names())


@pytest.mark.gpu
def test_the_gpu_gives_what_the_reference_gives(name: str) -> None:
    kernel = kernels.load(name)
    for case in kernel.cases():
        for kind in kernel.types:
            own = {n: t if n in kernel.mixed else t.to(getattr(torch, kind)) for n, t in case.tensors.items()}
            made = kernels.run(kernel, Case({n: t.cuda() for n, t in own.items()}, case.attributes)).double().cpu()
            wide = {n: t if n in kernel.mixed else t.double() for n, t in own.items()}
            wanted = kernel.reference(wide, case.attributes)
            assert (made - wanted).abs().max() <= 2 * BY_TYPE[coarsest(kernel, case, kind)] * wanted.abs().max()
