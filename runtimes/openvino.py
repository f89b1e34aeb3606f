"""OpenVINO on the CPU, one stream, for latency."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.compress.model import TensorSpec
from convkit.runtimes.session import (
    PARTITIONERS,
    NodeTime,
    Options,
    Runtime,
    check_file,
    check_inputs,
    engine_error,
    node_time,
)
from convkit.runtimes.session.knobs import THREADS, Knob, switch

if TYPE_CHECKING:
    import numpy as np

_TYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "boolean": "bool", "bf16": "bfloat16"}


def _engine() -> Any:  # noqa: ANN401 - the package has no types
    try:
        import openvino
    except ImportError as error:
        raise NotAvailableError("openvino is not installed", hint="pip install 'convkit[openvino]'") from error
    return openvino


class OpenVinoSession:
    """One compiled model and one infer request; inner tensors and profiles compile the same graph again."""

    def __init__(self, path: str, options: Options) -> None:
        self._path, self._options = path, options
        check_file(path)
        self._core = _engine().Core()
        self._model = self._read()
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self._request = self._compile(self._model, profile=False)
        self._inner: dict[tuple[str, ...], Any] = {}
        self._profiled: Any = None

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self.outputs] if outputs is None else list(outputs)
        request = self._request if outputs is None else self._giving(names)
        self._infer(request, inputs)
        return {name: request.get_tensor(name).data.copy() for name in names}

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        from convkit.runtimes import _openvino_graph

        if self._profiled is None:
            self._profiled = self._compile(self._model, profile=True)
        request = self._profiled
        self._infer(request, inputs)  # the first run allocates
        origins = _openvino_graph.origins(request.get_compiled_model().get_runtime_model())
        seconds: dict[tuple[str, str, str], list[float]] = {}
        for _ in range(repeats):
            self._infer(request, inputs)
            for node in request.get_profiling_info():
                if node.status == node.Status.EXECUTED:
                    key = (node.node_name, node.node_type, _executed(node.exec_type))
                    seconds.setdefault(key, []).append(node.real_time.total_seconds())
        return [node_time(key, times, origins.get(key[0], ())) for key, times in seconds.items()]

    def close(self) -> None:
        self._request = self._profiled = self._model = None
        self._inner.clear()

    def _read(self) -> Any:  # noqa: ANN401 - the engine's own type
        try:
            model = self._parse()
            if self._options.shapes:
                model.reshape({name: list(shape) for name, shape in self._options.shapes.items()})
        except Exception as error:
            raise engine_error("openvino", self._path, error) from error
        return model

    def _parse(self) -> Any:  # noqa: ANN401 - the engine's own type
        try:
            return self._core.read_model(self._path)
        except RuntimeError:
            model = _inlined(self._path)
            if model is None:
                raise
            return self._core.read_model(model)

    def _precision(self) -> str:
        """What is asked for; float32 where the device lacks it, for which OpenVINO may take another than that."""
        asked = self._options.precision
        return asked if asked in _precisions() else "f32"

    def _compile(self, model: Any, *, profile: bool) -> Any:  # noqa: ANN401 - the engine's own types
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._options.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self._precision(),
            "ENABLE_CPU_PINNING": self._options.pinning,
            "ENABLE_HYPER_THREADING": self._options.hyperthreading,
            "TBB_PARTITIONER": self._options.partitioner.upper(),
            "PERF_COUNT": profile,
        }
        try:
            return self._core.compile_model(model, "CPU", settings).create_infer_request()
        except Exception as error:
            raise engine_error("openvino", self._path, error) from error

    def _giving(self, names: list[str]) -> Any:  # noqa: ANN401 - the engine's own type
        """A request whose outputs include `names`."""
        have = {name for port in self._model.outputs for name in port.get_names()}
        if set(names) <= have:
            return self._request
        key = tuple(sorted(names))
        if key not in self._inner:
            model = self._model.clone()
            try:
                model.add_outputs([name for name in names if name not in have])
            except RuntimeError as error:
                raise ConvkitError(
                    f"a tensor of {', '.join(map(repr, names))} is not in {self._path}",
                    hint="name outputs of nodes that openvino keeps",
                ) from error
            self._inner[key] = self._compile(model, profile=False)
        return self._inner[key]

    def _infer(self, request: Any, inputs: Mapping[str, np.ndarray]) -> None:  # noqa: ANN401 - the engine's own type
        check_inputs(self.inputs, inputs)  # OpenVINO converts another type in silence
        try:
            request.infer(dict(inputs), share_inputs=True)
        except Exception as error:
            raise engine_error("openvino", self._path, error) from error


def _inlined(path: str) -> bytes | None:
    """The file with its model-local functions inlined, which OpenVINO does not know; None where it has none."""
    import onnx
    import onnx.inliner

    try:
        model = onnx.load(path)
    except Exception:  # noqa: BLE001 - no ONNX file: what OpenVINO said about it stands
        return None
    return onnx.inliner.inline_local_functions(model).SerializeToString() if model.functions else None


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401 - the engine's own type
    name = port.get_any_name()
    sizes = [dim.get_length() if dim.is_static else None for dim in port.get_partial_shape()]
    shape = tuple(f"{name}.{axis}" if size is None else size for axis, size in enumerate(sizes))
    sample = tuple(size for size in sizes if size is not None)
    dtype = _dtype(port.get_element_type().get_type_name())
    return TensorSpec(name, shape, dtype, sample if len(sample) == len(shape) else ())


def _dtype(kind: str) -> str:
    """numpy's name of OpenVINO's type: f32, bf16, i64, u8."""
    return _TYPES.get(kind) or kind.replace("i", "int", 1).replace("u", "uint", 1)


def _executed(kind: str) -> str:
    """`jit_avx512_i8` ran in int8; names without a type stay as they are."""
    suffix = kind.rsplit("_", 1)[-1].lower()
    return _dtype(suffix) if re.fullmatch(r"bf16|[fiu]\d+", suffix) else suffix


def _version() -> str:
    return str(_engine().get_version()).split("-", 1)[0]


def _precisions() -> tuple[str, ...]:
    """What the device says it has, in the words of Options."""
    have = _engine().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in _CAPABILITIES.items() if capability in have)


_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_KNOBS = (
    THREADS,
    Knob("precision", "what float layers run in, f32 where the device has no other", tuple(_CAPABILITIES)),
    switch("pinning", "every thread keeps to a core"),
    switch("hyperthreading", "two threads may share a core"),
    Knob("partitioner", "how work is shared among threads", PARTITIONERS, PARTITIONERS),
)

PART = Runtime(
    version=_version,
    open=OpenVinoSession,
    knobs=_KNOBS,
    precisions=_precisions,
)
