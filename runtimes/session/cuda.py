"""What engines on a GPU share: the GPU at hand, its own clock, and launches replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from convkit.compress import arrays
from convkit.compress.errors import NotAvailableError
from convkit.runtimes.session import nvml

if TYPE_CHECKING:
    import numpy as np
    import torch

_WARM = 3
"""Calls before a capture: libraries choose their kernels and allocate in the first ones, which no graph may hold."""


def module() -> Any:  # noqa: ANN401 - torch, whose types for CUDA differ between builds
    """torch; raises NotAvailableError where its build has no CUDA, or no GPU is at hand."""
    try:
        import torch
    except ImportError as error:
        raise NotAvailableError("torch is not installed", hint="pip install torch") from error
    if torch.version.cuda is None:
        raise NotAvailableError(
            "this build of torch has no CUDA", hint="install the one for CUDA that torch's installation page names"
        )
    if not torch.cuda.is_available():
        raise NotAvailableError("no GPU is at hand", hint="run it on a machine with an NVIDIA GPU and its driver")
    return torch


def about() -> str:
    """The GPU, as errors and versions call it: "NVIDIA H200, SM 90"."""
    torch = module()
    return f"{torch.cuda.get_device_name()}, SM {capability()}"


def capability() -> int:
    """Compute capability as `--sm` writes it: 89."""
    major, minor = module().cuda.get_device_capability()
    return int(10 * major + minor)


def reading() -> nvml.Reading | None:
    """Clocks and temperature of the GPU that torch computes on."""
    return nvml.read(f"GPU-{module().cuda.get_device_properties(0).uuid}")


class Device:
    """A stream of one's own and two events on it: launches are timed by the GPU's clock, from an idle GPU on."""

    def __init__(self) -> None:
        torch = module()
        self.stream = torch.cuda.Stream()
        self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def seconds(self, launch: Callable[[], object]) -> float:
        """From the moment the GPU may begin until its last kernel ends; what the host takes to launch counts."""
        begin, end = self._events
        with module().cuda.stream(self.stream):
            begin.record(self.stream)
            launch()
            end.record(self.stream)
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    def call(self, launch: Callable[[], object]) -> None:
        """Launch, and wait for the end."""
        with module().cuda.stream(self.stream):
            launch()
        self.stream.synchronize()

    def captured(self, launch: Callable[[], object]) -> Callable[[], object]:
        """`launch` as one CUDA graph, which the host starts with a single call; it reads and writes where it did."""
        torch = module()
        for _ in range(_WARM):
            self.call(launch)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            launch()
        replay: Callable[[], object] = graph.replay
        return replay


class Buffers:
    """Tensors on the GPU that stay where they are: a graph reads its inputs from fixed places."""

    def __init__(self, dtype: torch.dtype | None = None, *, channels_last: bool = False) -> None:
        self._dtype, self._channels_last = dtype, channels_last
        self.held: dict[str, torch.Tensor] = {}

    def fill(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Copy `inputs` in, floats as `dtype` has them; whether the places are new, for shapes may have changed."""
        torch = module()
        host = {name: arrays.host(array) for name, array in inputs.items()}
        moved = {n: list(t.shape) for n, t in host.items()} != {n: list(t.shape) for n, t in self.held.items()}
        if moved:
            self.held = {
                name: self._laid_out(torch.empty(t.shape, device="cuda", dtype=self._type(t)))
                for name, t in host.items()
            }
        for name, tensor in host.items():
            self.held[name].copy_(tensor)
        torch.cuda.synchronize()
        return moved

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        wanted = self._channels_last and tensor.dim() == 4  # noqa: PLR2004 - images
        return tensor.contiguous(memory_format=module().channels_last) if wanted else tensor

    def _type(self, tensor: torch.Tensor) -> torch.dtype:
        return self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
