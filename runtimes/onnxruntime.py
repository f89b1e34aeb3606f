"""ONNX Runtime, CPU execution provider."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.compress.model import TensorSpec
from convkit.runtimes.bench.size import model_size
from convkit.runtimes.session import (
    OPTIMIZATIONS,
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

_LEVELS = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
_TYPES = {"float": "float32", "double": "float64"}
_ERRORS_ONLY = 3
_LARGEST = 2**30
"""Bytes of a model up to which the engine also writes what it made of it, to tell which node is which."""


def engine() -> Any:  # noqa: ANN401 - the package has no types
    """The package; raises NotAvailableError where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotAvailableError("onnxruntime is not installed", hint="pip install onnxruntime") from error
    return onnxruntime


class OnnxRuntimeSession:
    """One file, opened once; inner tensors and profiles open the same file again with what they need."""

    def __init__(self, path: str, options: Options) -> None:
        self._path, self._options = path, options
        check_file(path)
        self._session = self._open(path, self._settings())
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self._inner: dict[tuple[str, ...], Any] = {}
        self._origins: Mapping[str, tuple[str, ...]] | None = None

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self.outputs] if outputs is None else list(outputs)
        session = self._session if outputs is None else self._giving(names)
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            check_inputs(self.inputs, inputs)
            raise engine_error("onnxruntime", self._path, error) from error

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        with tempfile.TemporaryDirectory() as folder:
            settings = self._settings()
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "profile")
            optimized = Path(folder) / "optimized.onnx"
            if self._origins is None and (model_size(self._path) or 0) < _LARGEST:
                settings.optimized_model_filepath = str(optimized)
            session = self._open(self._path, settings)
            for _ in range(repeats + 1):
                session.run(None, dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_text())
            if optimized.is_file():
                self._origins = _origins(self._path, optimized)
        return _node_times(events, self._origins or {})

    def close(self) -> None:
        self._session = None
        self._inner.clear()

    def _settings(self) -> Any:  # noqa: ANN401 - the engine's own type
        package, options = engine(), self._options
        settings = package.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
        settings.graph_optimization_level = getattr(
            package.GraphOptimizationLevel, f"ORT_{_LEVELS[options.optimization]}"
        )
        settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
        settings.log_severity_level = _ERRORS_ONLY
        return settings

    def _open(self, model: str | bytes, settings: Any) -> Any:  # noqa: ANN401 - the engine's own types
        try:
            return engine().InferenceSession(model, settings, providers=self._providers())
        except Exception as error:
            raise engine_error("onnxruntime", self._path, error) from error

    def _providers(self) -> list[Any]:
        return ["CPUExecutionProvider"]

    def _giving(self, names: list[str]) -> Any:  # noqa: ANN401 - the engine's own type
        """A session whose outputs include `names`."""
        if set(names) <= {spec.name for spec in self.outputs}:
            return self._session
        key = tuple(sorted(names))
        if key not in self._inner:
            self._inner[key] = self._open(with_outputs(self._path, names), self._settings())
        return self._inner[key]


def with_outputs(path: str, names: Sequence[str]) -> bytes:
    """The model with the tensors `names` as graph outputs too; their types are left for the engine to infer."""
    import onnx

    model = onnx.load(path)
    given = {value.name for value in model.graph.output}
    made = {value for node in model.graph.node for value in node.output}
    for name in names:
        if name not in made and name not in given:
            raise ConvkitError(f"no tensor of {path} is called {name!r}", hint="name the output of a node")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    return bytes(model.SerializeToString())


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401 - the engine's own type
    free = (f"{value.name}.{axis}" for axis in range(len(value.shape)))
    shape = tuple(dim if isinstance(dim, (int, str)) else name for dim, name in zip(value.shape, free, strict=True))
    sample = tuple(dim for dim in shape if isinstance(dim, int))
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, shape, _TYPES.get(dtype, dtype), sample if len(sample) == len(shape) else ())


def _origins(path: str, optimized: Path) -> Mapping[str, tuple[str, ...]]:
    import onnx

    from convkit.runtimes import _onnxruntime_graph

    files = (onnx.load(file, load_external_data=False) for file in (path, optimized))
    return _onnxruntime_graph.origins(*files)


def _node_times(events: Sequence[Mapping[str, Any]], origins: Mapping[str, tuple[str, ...]]) -> list[NodeTime]:
    """Medians per node; the first run is left out because it allocates."""
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        details = event["args"]
        types = [name for entry in details.get("input_type_shape", ()) for name in entry]
        dtype = _TYPES.get(types[0], types[0]) if types else ""
        key = (event["name"].removesuffix("_kernel_time"), details["op_name"], dtype)
        seconds.setdefault(key, []).append(event["dur"] * 1e-6)
    return [node_time(key, times[1:] or times, origins.get(key[0], ())) for key, times in seconds.items()]


KNOBS = (
    THREADS,
    switch("spinning", "idle threads wait awake, which pays where nobody else needs the cores"),
    Knob("optimization", "how far the graph is rewritten", OPTIMIZATIONS, ("all", "extended")),
)

PART = Runtime(
    version=lambda: str(engine().__version__),
    open=OnnxRuntimeSession,
    exact=True,
    knobs=KNOBS,
)
