"""PyTorch on an NVIDIA GPU, timed by the GPU's own clock: what a GPU gives a network without any export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.runtimes.eager import EagerSession, as_it_runs, loaded, tensors
from convkit.runtimes.session import PRECISIONS, Options, Runtime, check_inputs, cuda, engine_error
from convkit.runtimes.session.knobs import WEIGHTS, Knob, switch

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import fx

    from convkit.compress.model import Model
    from convkit.runtimes.session.nvml import Reading

_TYPES = {"bf16": "bfloat16", "f16": "float16"}
_AMPERE = 80
"""Compute capability from which on there are TF32 and bfloat16."""


class EagerCudaSession(EagerSession):
    """A Model on the GPU, its weights and floats in `Options.precision`; outputs have the types that they had.

    `run` copies from and to the host; `timed` does not.
    """

    _dtype: torch.dtype | None

    def __init__(self, model: Model, options: Options) -> None:
        torch = cuda.module()
        _choose_kernels(options.precision)
        name = _TYPES.get(options.precision)
        self._dtype = getattr(torch, name) if name else None
        graph = _on_gpu(model.graph, self._dtype)
        self._format = torch.channels_last if options.channels_last else torch.contiguous_format
        for tensor in (*graph.parameters(), *graph.buffers()):
            tensor.data = self._laid_out(tensor.data)
        super().__init__(model, options.threads)
        self._options, self._device, self._buffers = (
            options,
            cuda.Device(),
            cuda.Buffers(self._dtype, channels_last=options.channels_last),
        )
        self._function: Callable[..., Any] = torch.compile(graph, dynamic=False) if options.compile else graph
        self._launch: Callable[[], object] | None = None

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        if outputs is not None and not set(outputs) <= {spec.name for spec in self.outputs}:
            return super().run(inputs, outputs)
        self._device.call(self._prepared(inputs))
        results = dict(zip((spec.name for spec in self.outputs), self._results, strict=True))
        return {name: self._array(results[name]) for name in outputs or results}

    def timed(self, inputs: Mapping[str, np.ndarray]) -> float:
        return self._device.seconds(self._prepared(inputs))

    def reading(self) -> Reading | None:
        return cuda.reading()

    def _prepared(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """What launches a call on `inputs`, which are on the GPU by now."""
        check_inputs(self.inputs, inputs)
        if self._buffers.fill(inputs) or self._launch is None:
            self._launch = self._launching([self._buffers.held[spec.name] for spec in self.inputs])
        return self._launch

    def _launching(self, given: Sequence[torch.Tensor]) -> Callable[[], object]:
        torch = cuda.module()

        def launch() -> None:
            with torch.no_grad():
                self._results = self._function(*given)

        if not self._options.graphs:
            return launch
        try:
            return self._device.captured(launch)
        except RuntimeError as error:
            refused = engine_error("eager_cuda", self._model.name, error)
            raise ConvkitError(f"{refused.message} (as a CUDA graph)", hint="give graphs=off") from error

    def _tensors(self, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: self._moved(tensor) for name, tensor in tensors(inputs).items()}

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
        return self._laid_out(tensor.to(device="cuda", dtype=dtype))

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous(memory_format=self._format) if tensor.dim() == 4 else tensor  # noqa: PLR2004 - images

    def _array(self, tensor: torch.Tensor) -> np.ndarray:
        import torch

        wider = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        array: np.ndarray = wider.cpu().contiguous().numpy()
        return array

    def _timed_by(self, function: Callable[[], Any]) -> tuple[Any, float]:
        held: list[Any] = []
        seconds = self._device.seconds(lambda: held.append(function()))
        return held[0], seconds


def _on_gpu(graph: fx.GraphModule, dtype: torch.dtype | None) -> fx.GraphModule:
    """`graph` on the GPU, less what its operators read as numbers of the host: each would wait for the GPU."""
    names = [n.target for n in graph.graph.nodes if n.op == "get_attr" and n.users and all(map(_on_host(n), n.users))]
    held = {str(name): graph.get_buffer(str(name)) for name in names if str(name) in dict(graph.named_buffers())}
    moved = graph.to(device="cuda", dtype=dtype)
    for name, tensor in held.items():
        owner, _, own = name.rpartition(".")
        setattr(moved.get_submodule(owner), own, tensor)
    return moved


def _on_host(constant: fx.Node) -> Callable[[fx.Node], bool]:
    """Whether a user of `constant` reads it on the host, and never as its data."""
    return lambda user: graphs.operator(user) in _READ_ON_HOST and constant not in user.args[:1]


_READ_ON_HOST = (
    "Expand",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Tile",
)
"""Operators that take sizes, axes or amounts as tensors."""


def _choose_kernels(precision: str) -> None:
    """Torch's convolutions take TF32 by themselves: float32 is float32 here."""
    torch = cuda.module()
    narrow = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = narrow
    torch.backends.cudnn.benchmark = True


def _version() -> str:
    return f"{cuda.module().__version__} on {cuda.about()}"


def _precisions() -> tuple[str, ...]:
    cuda.module()
    return PRECISIONS if cuda.capability() >= _AMPERE else ("f32", "f16")


def _check(options: Options) -> None:
    cuda.module()
    if options.precision not in _precisions():
        raise ConvkitError(f"{cuda.about()} has no {options.precision}", hint=f"it has {', '.join(_precisions())}")


def _open(path: str, options: Options) -> EagerCudaSession:
    _check(options)
    return EagerCudaSession(loaded(path, options), options)


def _of_model(model: Model, options: Options) -> EagerCudaSession:
    _check(options)
    return EagerCudaSession(as_it_runs(model), options)


PART = Runtime(
    version=_version,
    open=_open,
    knobs=(
        Knob("precision", "what weights and floats are held and computed in", PRECISIONS),
        switch("graphs", "each call is one CUDA graph", tried=False),
        switch("compile", "torch.compile writes the kernels, in minutes", tried=False),
        switch("channels_last", "tensors keep the channels of a position together"),
        WEIGHTS,
    ),
    precisions=_precisions,
    of_model=_of_model,
)
