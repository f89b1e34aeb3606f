"""convkit's kernels on a GPU, beside torch eager (cuDNN, where it convolves) and torch.compile, over the floor.

Every call is one CUDA graph, and candidates take turns. The floor is what the GPU at hand takes to copy as many bytes
as the kernel must move at least.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from convkit.cli import figures, show
from convkit.export import kernel as kernels
from convkit.export.kernel import Case, Kernel
from convkit.runtimes.bench.estimate import Interval, paired_ratio
from convkit.runtimes.session import cuda
from tests.bench.limits import Line

OWN, EAGER, COMPILED = "kernel", "torch eager", "torch.compile"
ROUNDS, CALLS, WARM, SEED = 40, 10, 50, 0
_COPIED = 256 << 20
"""Bytes of a copy, more than any cache holds."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of a call of each candidate, the kernel's over each other one's, and the floor's seconds."""

    kernel: str
    seconds: Mapping[str, float]
    ratios: Mapping[str, Interval]
    floor: float


def lines(say: Callable[[str], None], report: dict[str, Any]) -> Iterator[Line]:
    """A table of all, and a line for each: it takes no longer than torch does."""
    say(f"kernels on {cuda.about()}")
    copying = _seconds_of_copy()
    found = [timed(name, copying, say) for name in kernels.names()]
    report["kernels"] = {"device": cuda.about(), "kernels": [asdict(one) for one in found]}
    rows = [[one.kernel, f"{one.seconds[OWN] * 1e6:.1f} µs", f"{one.floor / one.seconds[OWN]:.0%}",
             *(figures.ratio(one.ratios[name]) for name in (EAGER, COMPILED))] for one in found]  # fmt: skip
    show.table(["kernel", "p50", "of the floor", *(f"over {name}" for name in (EAGER, COMPILED))], rows)
    for one in found:
        for name, ratio in one.ratios.items():
            yield Line(f"{one.kernel}, {cuda.about()}", f"time over {name}'s", ratio, "<=", 1.0, "x")


def timed(name: str, copying: float, say: Callable[[str], None]) -> Timed:
    """The kernel's usual call in half precision; `copying`: seconds that a byte takes to be read or written."""
    say(f"{name}: kernel, {EAGER}, {COMPILED}")
    kernel = kernels.load(name)
    torch.manual_seed(SEED)
    case = _on_gpu(kernel, kernel.usual())
    plain = kernel.plain(case)
    calls: dict[str, Callable[[], object]] = {
        OWN: lambda: kernels.run(kernel, case),
        EAGER: plain,
        COMPILED: torch.compile(plain),
    }
    device = cuda.Device()
    graphs = {name: device.captured(call) for name, call in calls.items()}
    for graph in graphs.values():
        for _ in range(WARM):
            device.call(graph)
    taken = np.array([[_block(device, graph) for graph in graphs.values()] for _ in range(ROUNDS)])
    middle = dict(zip(graphs, np.median(taken, axis=0).tolist(), strict=True))
    others = {name: paired_ratio(taken[:, 0], taken[:, place], SEED) for place, name in enumerate(graphs) if place}
    return Timed(name, middle, others, kernel.floor(case).bytes * copying)


def _block(device: cuda.Device, graph: Callable[[], object]) -> float:
    return float(np.median([device.seconds(graph) for _ in range(CALLS)]))


def _on_gpu(kernel: Kernel, case: Case) -> Case:
    tensors = {n: t.cuda() if n in kernel.mixed else t.cuda().half() for n, t in case.tensors.items()}
    return Case(tensors, case.attributes)


def _seconds_of_copy() -> float:
    """Of one byte, read or written."""
    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    target, device = torch.empty_like(source), cuda.Device()
    return _block(device, lambda: target.copy_(source)) / (2 * _COPIED)
