"""Kernels compiled ahead of time, for GPUs that need not be here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.export.kernel import OUTPUT, WORK, Call, Kernel, Stage

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel

_TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int32": "i32", "int8": "i8"}
"""torch's names -> Triton's."""
_ALIGNED = [["tt.divisibility", 16]]
"""Engines begin tensors at multiples of 16 bytes and more."""
WARP = 32
_PTX = 87
"""The first version that knows every device; of drivers from CUDA 12.8 on."""


@dataclass(frozen=True, slots=True)
class Binary:
    """`code` for one compute capability: the function called `name`, which takes `shared` bytes and `warps` warps."""

    code: bytes
    name: str
    shared: int
    warps: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one thread: `registers`, and bytes of those that were `spilled` to memory."""

    registers: int
    spilled: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """PTX `text`, which a driver makes code of: the function called `name` takes what is read, then sizes in int32,
    then what is made.
    """

    text: str
    name: str
    shared: int
    warps: int


def compiled(kernel: Kernel, call: Call, types: Mapping[str, str], sm: int) -> list[Binary]:
    """Each stage of `kernel` for the compute capability `sm`; `types` are torch's, by tensor. Free sizes of `call` are
    any number.
    """
    made = [_compiled(stage, call, types, sm) for stage in kernel.stages]
    return [Binary(one.asm["cubin"], *_told(one)) for one in made]


def assembly(stage: Stage, call: Call, types: Mapping[str, str], sm: int) -> Assembly:
    """As `compiled`, for a stage without work."""
    import triton

    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # paths of this machine are no part of an engine
        made = _compiled(stage, call, types, sm, ptx_version=_PTX)
    name, shared, warps = _told(made)
    return Assembly(_in_order(str(made.asm["ptx"]), name, stage.tensors.index(OUTPUT)), name, shared, warps)


def _told(made: CompiledKernel) -> tuple[str, int, int]:
    told = made.metadata
    return told.name, int(told.shared), int(told.num_warps)


def _compiled(stage: Stage, call: Call, types: Mapping[str, str], sm: int, **asked: int) -> CompiledKernel:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, constants = stage.function.arg_names, dict(stage.constants(call))
    kinds = {**types, WORK: "float32"}
    signature = {name: f"*{_TYPES[kinds[tensor]]}" for name, tensor in zip(names, stage.tensors, strict=False)}
    signature |= {name: "constexpr" if name in constants else "i32" for name in names[len(stage.tensors) :]}
    aligned = {(place,): _ALIGNED for place in range(len(stage.tensors))}
    source = ASTSource(stage.function, signature, constants, aligned)
    options = {"num_warps": stage.warps, "enable_fp_fusion": True, **asked}
    return triton.compile(source, GPUTarget("cuda", sm, WARP), options)


def _in_order(text: str, name: str, made: int) -> str:
    """PTX whose function takes the tensor in place `made` last, and not the memory that Triton's own launcher adds.

    Parameters are read by name, so that the order in which they are declared is all that there is to it.
    """
    found = re.search(rf"(\.entry {name}\(\n)(.*?)(\n\))", text, re.DOTALL)
    if found is None:
        raise RuntimeError(f"no function {name} in its own PTX")
    *own, first, second = found[2].split(",\n")
    for spare in (first, second):
        if f"[{spare.split()[-1]}" in text[found.end() :]:
            raise RuntimeError(f"{name} needs memory that Triton's launcher alone gives")
    ordered = [*own[:made], *own[made + 1 :], own[made]]
    return text[: found.start(2)] + ",\n".join(ordered) + text[found.end(2) :]


def usage(binary: Binary) -> Usage:
    """What the compiler says of registers."""
    import subprocess
    import tempfile

    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.code)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if found is None:
        raise RuntimeError(f"cuobjdump tells no registers of {binary.name}: {said}")
    return Usage(int(found[1]), int(found[2]))
