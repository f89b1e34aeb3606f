"""A package like TensorRT's Python API for engines that run, on a machine without a GPU: its engines are ONNX files,
which ONNX Runtime computes in the very places that the caller names; the GPU's memory is the processor's.

What is under test is who calls it: addresses, shapes, types and layers as convkit hands them over and reads them back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError

MOST = 4
"""The largest batch of every engine's profile."""
MS = 0.25
"""What a call takes by the device's clock, and each layer by its profiler."""
_TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8"}


class ILogger:
    """What loggers are made of."""


class IProfiler:
    """What profilers are made of."""


@dataclass
class Engine:
    """`told`: what its inspector says of its layers."""

    data: bytes
    told: str

    def __post_init__(self) -> None:
        self.session = onnxruntime.InferenceSession(self.data, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self.session.get_inputs()}
        self._values = self._inputs | {value.name: value for value in self.session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INPUT" if name in self._inputs else "OUTPUT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._values[name].shape)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=_TYPES[self._values[name].type])

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> SimpleNamespace:
        return SimpleNamespace(get_engine_information=lambda form: self.told if form == "ONELINE" else "")


@dataclass
class Context:
    """Runs an engine where it is told that inputs are and outputs go."""

    engine: Engine
    profiler: Any = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= MOST

    def set_tensor_address(self, name: str, place: int) -> None:
        self.places[name] = place

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.engine.get_tensor_shape(name)
        batch = next(iter(self.shapes.values()))[0]
        return (batch, *shape[1:]) if shape[:1] == (-1,) else shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 0
        inputs = {v.name: self._at(v.name, v.type, self.shapes[v.name]) for v in self.engine.session.get_inputs()}
        outputs = self.engine.session.get_outputs()
        for value, made in zip(outputs, self.engine.session.run(None, inputs), strict=True):
            self._at(value.name, value.type, made.shape)[...] = made
        if self.profiler is not None:
            for line in self.engine.told.splitlines():
                self.profiler.report_layer_time(line.partition(",")[0].removeprefix("Name: "), MS)
        return True

    def _at(self, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype({"FLOAT": "f4", "HALF": "f2", "INT64": "i8", "UINT8": "u1"}[_TYPES[kind]])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_byte * size).from_address(self.places[name])
        return np.frombuffer(memory, dtype).reshape(shape)


class Runtime:
    """Reads an engine, with an error in the log where it is none."""

    told = ""

    def __init__(self, log: Any) -> None:
        self.log = log

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        try:
            onnx.load_from_string(data)
            return Engine(data, self.told)
        except DecodeError:
            words = "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magic tag does not match In engine)"
            self.log.log(SimpleNamespace(name="ERROR"), words)
            return None


def package(told: str) -> tuple[ModuleType, list[str]]:
    """The package, whose engines all tell the layers `told`; and what of its own plugins was registered."""
    found, registered = ModuleType("tensorrt"), list[str]()
    names = {"ILogger": ILogger, "IProfiler": IProfiler, "Runtime": type("Told", (Runtime,), {"told": told})}
    names |= {"__version__": "10.9", "LayerInformationFormat": SimpleNamespace(ONELINE="ONELINE")}
    names |= {"init_libnvinfer_plugins": lambda _log, namespace: registered.append(namespace)}
    names |= {"get_plugin_registry": lambda: SimpleNamespace(all_creators=[])}
    for name, value in names.items():
        setattr(found, name, value)
    return found, registered


class Device:
    """Stands for `cuda.Device`: calls end at once, and take MS."""

    def call(self, launch: Callable[[], object]) -> None:
        launch()

    def seconds(self, launch: Callable[[], object]) -> float:
        launch()
        return MS * 1e-3

    def captured(self, launch: Callable[[], object]) -> Callable[[], object]:
        return launch


class Torch:
    """torch with a GPU whose memory is the processor's."""

    def __init__(self) -> None:
        self.cuda = SimpleNamespace(
            synchronize=lambda: None,
            current_stream=lambda: SimpleNamespace(cuda_stream=0),
            get_device_capability=lambda: (8, 9),
            get_device_name=lambda: "a GPU",
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *sizes: Any, device: str, **more: Any) -> torch.Tensor:
        assert device == "cuda"
        return torch.empty(*sizes, **more)


@contextmanager
def installed(monkeypatch: Any, told: str = "") -> Iterator[list[str]]:
    """The package and the GPU at hand; what was registered of the package's own plugins."""
    from convkit.export import kernel
    from convkit.runtimes.session import cuda

    found, registered = package(told)
    one = Torch()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "tensorrt", found)
        patch.setattr(cuda, "module", lambda: one)
        patch.setattr(cuda, "Device", Device)
        patch.setattr(kernel, "is_here", lambda: False)
        yield registered
