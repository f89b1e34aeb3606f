"""ONNX Runtime on an NVIDIA GPU, through its CUDA execution provider, timed by the GPU's own clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.runtimes.onnxruntime import KNOBS, OnnxRuntimeSession, engine
from convkit.runtimes.session import NodeTime, Options, Runtime, check_file, check_inputs, cuda, engine_error
from convkit.runtimes.session.knobs import Knob, switch

if TYPE_CHECKING:
    import numpy as np

    from convkit.runtimes.session.nvml import Reading

_PROVIDER = "CUDAExecutionProvider"
_PRECISIONS = ("f32", "tf32")


class OnnxRuntimeCudaSession(OnnxRuntimeSession):
    """`run` copies from and to the host; `timed` does not."""

    def __init__(self, path: str, options: Options) -> None:
        self._device, self._buffers = cuda.Device(), cuda.Buffers()
        self._launch: Callable[[], object] | None = None
        super().__init__(path, options)
        if self._session.get_providers()[0] != _PROVIDER:
            hint = f"its libraries must be those of CUDA {cuda.module().version.cuda} and cuDNN 9"
            raise NotAvailableError("onnxruntime does not run on this GPU, only on the CPU", hint=hint)

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        hint = "eager_cuda tells it"
        raise ConvkitError("onnxruntime_cuda tells what launching a node takes, not what the node takes", hint=hint)

    def timed(self, inputs: Mapping[str, np.ndarray]) -> float:
        check_inputs(self.inputs, inputs)
        if self._buffers.fill(inputs) or self._launch is None:
            self._launch = self._bound()
            self._device.call(self._launch)
        return self._device.seconds(self._launch)

    def reading(self) -> Reading | None:
        return cuda.reading()

    def _providers(self) -> list[Any]:
        return [(_PROVIDER, self._provider()), "CPUExecutionProvider"]

    def _provider(self) -> dict[str, str]:
        narrow = str(int(self._options.precision == "tf32"))
        wide = str(int(self._options.channels_last))
        stream = str(self._device.stream.cuda_stream)
        return {"user_compute_stream": stream, "use_tf32": narrow, "prefer_nhwc": wide}

    def _bound(self) -> Callable[[], object]:
        """A call whose inputs are the buffers, and whose outputs the engine leaves on the GPU."""
        binding = self._session.io_binding()
        for spec in self.inputs:
            held = self._buffers.held[spec.name]
            binding.bind_input(spec.name, "cuda", 0, _element(spec.dtype), tuple(held.shape), held.data_ptr())
        for spec in self.outputs:
            binding.bind_output(spec.name, "cuda")
        unsynchronized = engine().RunOptions()
        unsynchronized.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def launch() -> None:
            try:
                self._session.run_with_iobinding(binding, unsynchronized)
            except Exception as error:
                raise engine_error("onnxruntime_cuda", self._path, error) from error

        return launch


def _element(dtype: str) -> Any:  # noqa: ANN401 - numpy's own type
    import numpy as np

    return np.dtype(dtype).type


def _version() -> str:
    found = str(engine().__version__)
    if _PROVIDER not in engine().get_available_providers():
        hint = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        raise NotAvailableError("onnxruntime is here without its CUDA provider", hint=hint)
    return f"{found} on {cuda.about()}"


def _open(path: str, options: Options) -> OnnxRuntimeCudaSession:
    check_file(path)
    _version()
    if options.precision not in _PRECISIONS:
        hint = "the file says what its layers run in; on the command line there is f32 and tf32"
        raise ConvkitError(f"onnxruntime_cuda has no precision {options.precision}", hint=hint)
    return OnnxRuntimeCudaSession(path, options)


PART = Runtime(
    version=_version,
    open=_open,
    knobs=(
        *(knob for knob in KNOBS if knob.name == "optimization"),
        Knob("precision", "what float32 products are computed in", _PRECISIONS),
        switch("channels_last", "tensors keep the channels of a position together"),
    ),
    precisions=lambda: _PRECISIONS,
)
