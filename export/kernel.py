"""A fused kernel in Triton: of each op, `export/ops/NAME/kernel.py` holds one.

What it computes, `reference` says in plain torch; the interpreter runs the kernel against it without a GPU, and the
compiler writes it for devices that need not be here. `floor` is the least that any kernel moves and computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convkit.compress import parts
from convkit.compress.errors import NotAvailableError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, FILE = "export/ops", "/kernel.py"
PROVEN = "proven.json"
OUTPUT, WORK = "y", "work"
"""What stages call the output, and the float32 numbers that they hand each other."""
FREE = -1
"""A size that is not known when a kernel is compiled."""
INSTALL = "pip install 'convkit[kernels]'"
Size = Any
"""Of an axis: a number, or in TensorRT an expression of numbers."""


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a kernel: shapes by tensor, the output included, and the node's attributes."""

    shapes: Mapping[str, Sequence[Size]]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launch:
    """Programs along the axes of the grid, and the int32 `scalars` that the function takes behind its tensors."""

    grid: tuple[int, ...]
    scalars: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One Triton `function`: it takes `tensors` by name, then scalars, then constants, which no free size decides."""

    function: Any
    tensors: tuple[str, ...]
    constants: Callable[[Call], Mapping[str, Any]]
    launch: Callable[[Call], Launch]
    warps: int = 4


@dataclass(frozen=True, slots=True)
class Floor:
    """`bytes` that go to and from memory, each tensor once, and products (`macs`)."""

    bytes: int
    macs: int


@dataclass(frozen=True, slots=True)
class Case:
    """Tensors by name and attributes that a kernel is tested on."""

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proven:
    """What tests have found: novel convolutions of which it computes a part, and by compute capability, of its usual
    call in half precision, `registers` of a thread and bytes that were `spilled`.
    """

    convs: Sequence[str]
    registers: Mapping[str, int]
    spilled: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Kernel:
    """`tensors`: the inputs by name, of which `mixed` ones have types of their own (name -> torch's names of them), all
    others that of the first. `shape` is the output's, of the inputs' and the attributes, by sums, products and whole
    quotients of sizes alone.
    """

    tensors: tuple[str, ...]
    shape: Callable[[Mapping[str, Sequence[Size]], Mapping[str, Any]], Sequence[Size]]
    stages: tuple[Stage, ...]
    reference: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Tensor]
    macs: Callable[[Call], int]
    cases: Callable[[], Iterable[Case]]
    usual: Callable[[], Case]
    """Of a size that networks have, for benches."""

    eager: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Callable[[], Tensor]] | None = None
    """What a user of torch calls, made of weights beforehand, where `reference` is no way to compute it."""

    mixed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    multiplies: bool = False
    """Whether it has products of matrices, for the tensor cores."""

    types: tuple[str, ...] = ("float32", "float16", "bfloat16")
    work: Callable[[Call], int] = lambda _: 0
    """Numbers in float32 that stages hand each other."""

    def kinds(self, tensor: str, first: str) -> tuple[str, ...]:
        """Types that a tensor may have where the first has the type `first`."""
        return self.mixed.get(tensor, (first,))

    def floor(self, case: Case) -> Floor:
        """Of the call that `case` makes."""
        import math

        call, first = self.call(case), case.tensors[self.tensors[0]]
        read = {tensor.data_ptr(): tensor.nbytes for tensor in case.tensors.values()}
        return Floor(sum(read.values()) + math.prod(call.shapes[OUTPUT]) * first.itemsize, self.macs(call))

    def plain(self, case: Case) -> Callable[[], Tensor]:
        """What torch computes for `case`, without the kernel."""
        if self.eager is not None:
            return self.eager(case.tensors, case.attributes)
        return lambda: self.reference(case.tensors, case.attributes)

    def call(self, case: Case) -> Call:
        """The Call that the tensors of `case` make."""
        shapes = {name: tuple(tensor.shape) for name, tensor in case.tensors.items()}
        return Call({**shapes, OUTPUT: tuple(self.shape(shapes, case.attributes))}, case.attributes)


def load(name: str) -> Kernel:
    """That of the op called `name`. Raises ConvkitError where there is none, NotAvailableError without Triton."""
    parts.path(FOLDER, name, FILE)
    if not is_here():
        raise NotAvailableError("Triton is not installed, which kernels are written in", hint=INSTALL)
    found: Kernel = parts.load(FOLDER, name, "kernel")
    return found


def names() -> list[str]:
    """Of the ops that have a kernel."""
    return parts.names(FOLDER, FILE)


def proven(name: str) -> Proven | None:
    """What is proven of the kernel called `name`; None for somebody else's."""
    import json

    file = parts.path(FOLDER, name, FILE).with_name(PROVEN)
    return Proven(**json.loads(file.read_text())) if file.is_file() else None


def of_conv(conv: str) -> list[str]:
    """Kernels that compute a part of the novel convolution called `conv`."""
    return [name for name in names() if (found := proven(name)) is not None and conv in found.convs]


def is_here() -> bool:
    """Whether there is what kernels are compiled by."""
    from importlib.util import find_spec

    return find_spec("triton") is not None


def run(kernel: Kernel, case: Case) -> Tensor:
    """The output for tensors where Triton runs: on a GPU, or anywhere in its interpreter."""
    import torch

    call, first = kernel.call(case), case.tensors[kernel.tensors[0]]
    made = torch.empty(tuple(call.shapes[OUTPUT]), dtype=first.dtype, device=first.device)
    work = torch.empty(max(1, kernel.work(call)), dtype=torch.float32, device=first.device)
    tensors = {**case.tensors, OUTPUT: made, WORK: work}
    for stage in kernel.stages:
        launch = stage.launch(call)
        given = [tensors[name] for name in stage.tensors]
        stage.function[launch.grid](*given, *launch.scalars, **stage.constants(call), num_warps=stage.warps)
    return made
