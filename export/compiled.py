"""Kernels compiled ahead of time, for GPUs that need not be here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convkit.export.kernel import WORK, Call, Kernel, Stage

_TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int32": "i32", "int8": "i8"}
"""torch's names -> Triton's."""
_ALIGNED = [["tt.divisibility", 16]]
"""Engines begin tensors at multiples of 16 bytes and more."""
_WARP = 32


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


def compiled(kernel: Kernel, call: Call, types: Mapping[str, str], sm: int) -> list[Binary]:
    """Each stage of `kernel` for the compute capability `sm`; `types` are torch's, by tensor. Free sizes of `call` are
    any number.
    """
    return [_compiled(stage, call, types, sm) for stage in kernel.stages]


def _compiled(stage: Stage, call: Call, types: Mapping[str, str], sm: int) -> Binary:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, constants = stage.function.arg_names, dict(stage.constants(call))
    kinds = {**types, WORK: "float32"}
    signature = {name: f"*{_TYPES[kinds[tensor]]}" for name, tensor in zip(names, stage.tensors, strict=False)}
    signature |= {name: "constexpr" if name in constants else "i32" for name in names[len(stage.tensors) :]}
    aligned = {(place,): _ALIGNED for place in range(len(stage.tensors))}
    source = ASTSource(stage.function, signature, constants, aligned)
    made = triton.compile(source, GPUTarget("cuda", sm, _WARP), {"num_warps": stage.warps, "enable_fp_fusion": True})
    told = made.metadata
    return Binary(made.asm["cubin"], told.name, int(told.shared), int(told.num_warps))


def usage(binary: Binary) -> Usage:
    """What the compiler says of registers."""
    import re
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
