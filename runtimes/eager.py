"""PyTorch, node by node: what every other engine is compared with. Runs whatever `convkit.compress.model` loads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.compress import arrays
from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.runtimes.session import NodeTime, Options, Runtime, check_inputs, node_time
from convkit.runtimes.session.knobs import THREADS, WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import fx

    from convkit.compress.model import Model


Stopwatch = Callable[[Callable[[], Any]], tuple[Any, float]]
"""Runs what it is given; returns its result and the seconds it took."""


class EagerSession:
    """A Model on the CPU. `Options.threads` is torch's own setting, shared by the whole process."""

    def __init__(self, model: Model, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._model = model
        self.inputs, self.outputs = model.inputs, model.outputs

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        check_inputs(self.inputs, inputs)
        tensors = self._tensors(inputs)
        if outputs is None or set(outputs) <= {spec.name for spec in self.outputs}:
            results = self._model(tensors)
            wanted = list(results) if outputs is None else list(outputs)
        else:
            results, wanted = self._recorded(tensors, set(outputs)), list(outputs)
        return {name: self._array(results[name]) for name in wanted}

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        check_inputs(self.inputs, inputs)
        seconds: dict[tuple[str, str, str], list[float]] = {}
        timer = _timer(self._model.graph, seconds, self._timed_by)
        tensors = self._tensors(inputs)
        for _ in range(repeats + 1):
            self._walk(timer, tensors)
        return [node_time(key, times[1:] or times) for key, times in seconds.items()]

    def close(self) -> None:
        """Memory goes with the last reference."""

    def _recorded(self, tensors: Mapping[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        self._walk(_recorder(self._model.graph, wanted, found), tensors)
        missing = sorted(wanted - set(found))
        if missing:
            raise ConvkitError(f"no tensor of {self._model.name} is called {missing[0]!r}")
        return found

    def _walk(self, interpreter: fx.Interpreter, tensors: Mapping[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            interpreter.run(*(tensors[spec.name] for spec in self.inputs))

    def _tensors(self, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return tensors(inputs)

    def _array(self, tensor: torch.Tensor) -> np.ndarray:
        return arrays.array(tensor)

    def _timed_by(self, function: Callable[[], Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        return function(), time.perf_counter() - started


def tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Arrays as tensors over the same memory, which torch wants to be writable."""
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in inputs.items()}


def _recorder(graph: fx.GraphModule, wanted: set[str], found: dict[str, torch.Tensor]) -> fx.Interpreter:
    """Keeps the tensors whose value name is wanted."""
    from torch import fx

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
            result = super().run_node(n)
            name = n.meta.get("value")
            if name in wanted:
                found[name] = result
            return result

    return Recorder(graph)


def _timer(
    graph: fx.GraphModule, seconds: dict[tuple[str, str, str], list[float]], stopwatch: Stopwatch
) -> fx.Interpreter:
    """Notes what each layer and operator takes."""
    import torch
    from torch import fx

    class Timer(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
            step = super().run_node
            result, taken = stopwatch(lambda: step(n))
            if n.op in ("call_module", "call_function"):
                dtype = str(result.dtype).removeprefix("torch.") if isinstance(result, torch.Tensor) else ""
                seconds.setdefault((n.meta.get("value", n.name), _operator(graph, n), dtype), []).append(taken)
            return result

    return Timer(graph)


def _operator(graph: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _version() -> str:
    try:
        import torch
    except ImportError as error:
        raise NotAvailableError("torch is not installed", hint="pip install torch") from error
    return str(torch.__version__)


def loaded(path: str, options: Options) -> Model:
    """The network at `path`; a quantized one in the integer arithmetic of the engine that it is for."""
    from convkit.compress.model import InputShape, ModelRef, load

    shapes = {
        name: InputShape(tuple(shape), tuple(shape), options.dtypes.get(name, ""))
        for name, shape in options.shapes.items()
    }
    return as_it_runs(load(ModelRef(path, weights=options.weights, shapes=shapes)))


def as_it_runs(model: Model) -> Model:
    """`model`, a quantized one in the integer arithmetic of the engine that it is for."""
    from convkit.compress import simulate

    return simulate.integers(model) if simulate.is_quantized(model) else model


def _open(path: str, options: Options) -> EagerSession:
    _version()
    return EagerSession(loaded(path, options), options.threads)


def _of_model(model: Model, options: Options) -> EagerSession:
    return EagerSession(as_it_runs(model), options.threads)


PART = Runtime(
    version=_version,
    open=_open,
    exact=True,
    knobs=(THREADS, WEIGHTS),
    of_model=_of_model,
)
