"""TensorRT's runtime, of either package: engines that `convkit export` wrote, and ONNX files, built for this GPU first.

A file is built as `export` builds it, and every layer with a weight must run in the type that the file plans.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress import arrays, record
from convkit.compress.errors import ConvkitError, NotAvailableError, VerdictError
from convkit.compress.model import TensorSpec
from convkit.export import kernel
from convkit.export.tensorrt import kernel_plugin, package, plugin
from convkit.runtimes.session import NodeTime, Options, Runtime, check_file, check_inputs, cuda, node_time
from convkit.runtimes.session.knobs import PLUGIN, switch

if TYPE_CHECKING:
    import numpy as np
    import torch

    from convkit.export.tensorrt.dump import EngineLayer
    from convkit.export.tensorrt.precision import Finding
    from convkit.runtimes.session.nvml import Reading

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""The package's names of types that inputs and outputs have -> numpy's and torch's."""


class TensorRtSession:
    """One engine on the GPU. `run` copies from and to the host; `timed` does not. `probed`: it only tells what tensors
    inside of another hold, and may run otherwise than that one, for it keeps them.
    """

    def __init__(self, name: str, path: str, options: Options, *, probed: bool = False) -> None:
        self._name, self._path, self._options, self._probed = name, path, options, probed
        check_file(path)
        self._trt = package.load(name)
        self._log = package.Logger(self._trt)
        self._plugins = tuple(str(Path(file).absolute()) for file in [options.plugin] if file)
        plugin.shipped(self._trt, self._log.log)
        plugin.register(self._trt, self._plugins)
        if kernel.is_here():
            kernel_plugin.register(self._trt)
        engine, layers = self._read(Path(path))
        self._engine, self._context = self._opened(engine)
        self._layers = layers or self._inspected()
        if not layers:
            self._check(Path(path), engine)
        self._device, self._buffers = cuda.Device(), cuda.Buffers()
        self._launch: Callable[[], object] | None = None
        self._made: dict[str, torch.Tensor] = {}
        self._inner: dict[tuple[str, ...], TensorRtSession] = {}
        self.inputs, self.outputs = self._specs("INPUT"), self._specs("OUTPUT")

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        wanted = [spec.name for spec in self.outputs] if outputs is None else list(outputs)
        inner = sorted(set(wanted) - {spec.name for spec in self.outputs})
        if inner:
            if tuple(inner) not in self._inner:
                self._inner[tuple(inner)] = self._giving(inner)
            return self._inner[tuple(inner)].run(inputs, wanted)
        self._device.call(self._prepared(inputs))
        return {name: arrays.array(self._made[name]) for name in wanted}

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        launch, seconds = self._prepared(inputs, plain=True), dict[str, list[float]]()
        self._context.profiler = profiler = _profiler(self._trt, seconds)
        try:
            for _ in range(repeats + 1):
                self._device.call(launch)
        finally:
            self._context.profiler = None
            del profiler
        known = {layer.name: layer for layer in self._layers}
        return [_node_time(name, times[1:] or times, known.get(name)) for name, times in seconds.items()]

    def timed(self, inputs: Mapping[str, np.ndarray]) -> float:
        return self._device.seconds(self._prepared(inputs))

    def reading(self) -> Reading | None:
        return cuda.reading()

    def close(self) -> None:
        for session in self._inner.values():
            session.close()
        self._inner.clear()
        self._launch = self._context = self._engine = None

    def _read(self, file: Path) -> tuple[bytes, Sequence[EngineLayer]]:
        """The engine, and its layers where it is built here."""
        if file.suffix != ".onnx":
            return file.read_bytes(), ()
        from convkit.export.tensorrt import asserted, request

        sm = cuda.capability() if package.PACKAGES[self._name].sms else None
        shapes = {name: tuple(shape) for name, shape in self._options.shapes.items()}
        profile = request.Profile(shapes, shapes, shapes, self._options.batch)
        settings = request.Settings(sm=sm, profile=profile, plugins=self._plugins)
        made = asserted.build_and_assert(self._name, file, settings)
        self._refuse([finding for finding in made.findings if not finding.holds])
        return made.built.engine, made.built.layers

    def _opened(self, engine: bytes) -> tuple[Any, Any]:
        runtime = self._trt.Runtime(self._log.log)
        opened = runtime.deserialize_cuda_engine(engine)
        context = opened.create_execution_context() if opened is not None else None
        if context is None:
            raise self._refused("it gave no reason")
        return opened, context

    def _inspected(self) -> Sequence[EngineLayer]:
        """The layers that an engine tells of, one that was built to tell them."""
        from convkit.export.tensorrt import dump

        inspector, form = self._engine.create_engine_inspector(), self._trt.LayerInformationFormat.ONELINE
        try:
            return dump.layers([f"{dump.HEADING}\n{inspector.get_engine_information(form)}"])
        except ConvkitError:
            return ()

    def _check(self, path: Path, engine: bytes) -> None:
        """Raise VerdictError where layers run in other types than the file beside it says, where a manifest has it that
        the engine was built of that."""
        import onnx

        from convkit.export.tensorrt import asserted, precision

        file, manifest = path.with_name(record.MODEL), path.with_name(record.MANIFEST)
        if not self._layers or not file.is_file() or not manifest.is_file():
            return
        if json.loads(manifest.read_text())["digests"].get("engine") != record.digest_bytes(engine):
            return
        model = onnx.load(file)
        asserted.inlined(model)
        self._refuse([one for one in precision.compare(model, self._layers) if not one.holds and one.ran is not None])

    def _refuse(self, departed: Sequence[Finding]) -> None:
        if departed and not self._probed:
            more = f", and {len(departed) - 1} more" if len(departed) > 1 else ""
            raise VerdictError(f"{self._path}: {departed[0].words}{more}", hint="`convkit lint` says what has kernels")

    def _refused(self, otherwise: str) -> ConvkitError:
        words = next((text for level, text in reversed(self._log.messages) if level.endswith("ERROR")), otherwise)
        about = package.PACKAGES[self._name].about
        known = package.PACKAGES[self._name]
        for_this = f" --sm {cuda.capability()}" if known.sms else ""
        hint = f"build it with this version: convkit export NET --target {known.extra}{for_this} -o OUT"
        if "EngineHostCodeAllowed" in words:
            words = "it holds a program of its own, of --version-compatible, and convkit runs none from a file"
            hint = "measure one that is built without that"
        return ConvkitError(f"{about} refuses {self._path}: {_reason(words)}", hint=hint)

    def _specs(self, mode: str) -> tuple[TensorSpec, ...]:
        engine = self._engine
        names = (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
        return tuple(self._spec(name) for name in names if engine.get_tensor_mode(name).name == mode)

    def _spec(self, name: str) -> TensorSpec:
        sizes = tuple(self._engine.get_tensor_shape(name))
        shape = tuple(f"{name}.{axis}" if size < 0 else size for axis, size in enumerate(sizes))
        kind = self._engine.get_tensor_dtype(name).name
        return TensorSpec(name, shape, _TYPES.get(kind, kind.lower()), sizes if min(sizes, default=0) >= 0 else ())

    def _prepared(self, inputs: Mapping[str, np.ndarray], *, plain: bool = False) -> Callable[[], object]:
        """What launches a call on `inputs`, which are on the GPU by now; `plain`: not as a CUDA graph."""
        check_inputs(self.inputs, inputs)
        if self._buffers.fill(inputs) or self._launch is None:
            self._bind()
            self._launch = self._device.captured(self._enqueue) if self._options.graphs else self._enqueue
        return self._enqueue if plain else self._launch

    def _bind(self) -> None:
        """Tell the context where inputs are and outputs go."""
        torch, context = cuda.module(), self._context
        lacked = next((spec for spec in self.outputs if not hasattr(torch, spec.dtype)), None)
        if lacked is not None:
            raise ConvkitError(
                f"{self._path}: output {lacked.name!r} is in {lacked.dtype}, which torch has not",
                hint="cast it to float in the network",
            )
        for name, tensor in self._buffers.held.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                shape = "x".join(map(str, tensor.shape))
                raise ConvkitError(
                    f"{self._path}: input {name!r} of {shape} is outside the shapes that the engine is built for",
                    hint="build it with --min-shapes and --max-shapes that hold it",
                )
            context.set_tensor_address(name, tensor.data_ptr())
        for spec in self.outputs:
            made = tuple(context.get_tensor_shape(spec.name))
            if min(made, default=0) < 0:
                raise ConvkitError(
                    f"{self._path}: the size of output {spec.name!r} is known only once it was made",
                    hint="leave that output out, or run it on another engine",
                )
            self._made[spec.name] = torch.empty(made, dtype=getattr(torch, spec.dtype), device="cuda")
            context.set_tensor_address(spec.name, self._made[spec.name].data_ptr())

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(cuda.module().cuda.current_stream().cuda_stream):
            raise self._refused("a call failed")

    def _giving(self, names: Sequence[str]) -> TensorRtSession:
        """The same file built with the tensors `names` as outputs too."""
        if not self._path.endswith(".onnx"):
            hint = "give the ONNX file it was built of"
            raise ConvkitError(f"no tensor of {self._path} is called {names[0]!r}: it is an engine", hint=hint)
        import tempfile

        from convkit.runtimes.onnxruntime import with_outputs

        with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
            file = Path(folder) / Path(self._path).name
            file.write_bytes(with_outputs(self._path, names))
            return TensorRtSession(self._name, str(file), self._options, probed=True)


def runtime(name: str) -> Runtime:
    """The Runtime of the package called `name`."""
    return Runtime(
        version=lambda: _version(name),
        open=lambda path, options: _open(name, path, options),
        builds=True,
        knobs=(switch("graphs", "each call is one CUDA graph", tried=False), PLUGIN),
    )


def _version(name: str) -> str:
    """Of the package, which must have kernels for the GPU at hand."""
    found, known = package.version(name), package.PACKAGES[name]
    try:
        cuda.module()
    except NotAvailableError as error:
        here = f"; convkit export NET --target {known.extra} --sm 89 builds engines without one" if known.sms else ""
        raise NotAvailableError(f"{known.about} is here, but {error.message}", hint=f"{error.hint}{here}") from error
    if known.sms and cuda.capability() not in known.sms:
        listed = ", ".join(map(str, known.sms))
        raise NotAvailableError(f"{known.about} has nothing for {cuda.about()}", hint=f"it runs on SM {listed}")
    return f"{found} on {cuda.about()}"


def _open(name: str, path: str, options: Options) -> TensorRtSession:
    check_file(path)
    _version(name)
    return TensorRtSession(name, path, options)


def _reason(words: str) -> str:
    """What an error says, without the call it came from and the line of the source."""
    _, _, inner = words.partition("Error (")
    return (inner or words).partition(" In ")[0].strip()[:400]


def _node_time(name: str, seconds: Sequence[float], layer: EngineLayer | None) -> NodeTime:
    dtype = layer.inputs[0].dtype if layer is not None and layer.inputs else ""
    return node_time((name, layer.kind if layer else "", dtype), seconds, layer.nodes if layer else ())


def _profiler(trt: Any, seconds: dict[str, list[float]]) -> Any:  # noqa: ANN401 - the package has no types
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            seconds.setdefault(layer_name, []).append(ms * 1e-3)

    return Profiler()
