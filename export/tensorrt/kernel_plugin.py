"""convkit's kernels as plugins: nodes `convkit::NAME` that `export/kernels.py` writes.

A kernel is compiled as its engine is built, for that engine's device, and the engine holds the code. Who runs the
engine calls `register(trt)` first, with convkit and Triton installed: how many programs run for which shapes, Python
says. What quick.py takes needs neither.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from convkit.compress.membership import DOMAIN
from convkit.export import kernel as kernels
from convkit.export.compiled import Binary, compiled
from convkit.export.functions import titled
from convkit.export.kernel import FREE, OUTPUT, WORK, Call, Kernel
from convkit.export.kernels import CALL
from convkit.export.tensorrt import package, quick
from convkit.export.tensorrt.driver import Function
from convkit.export.tensorrt.expression import Expression

_VERSION, _STATE = "1", "state"
NO_STATE = f"Attribute {_STATE} not found"
"""What the parser warns of a node that is built: only an engine has it."""
_FLOAT32 = 4


def register(trt: Any, names: Sequence[str] | None = None, sm: int | None = None) -> None:
    """Register the kernels called `names`, None for all, with the package `trt`, for engines that are read, or built
    for the compute capability `sm`. Those that its `plugin` takes are made by quick.py.
    """
    registry, deployable = trt.get_plugin_registry(), quick.module(trt)
    for name in kernels.names() if names is None else names:
        if registry.get_creator(titled(name), _VERSION, DOMAIN) is not None:
            continue
        if deployable is not None and quick.takes(kernels.load(name)):
            quick.register(trt, deployable, name, sm)
        else:
            registry.register_creator(_creator(trt, name, sm), DOMAIN)


def _creator(trt: Any, name: str, sm: int | None) -> Any:
    plugin = _plugin(trt, name, sm)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = titled(name), _VERSION, DOMAIN
            fields = [trt.PluginField(field, b"", trt.PluginFieldType.CHAR) for field in (CALL, _STATE)]
            self.field_names = trt.PluginFieldCollection(fields)

        def create_plugin(self, node: str, fields: Any, phase: Any) -> Any:
            given = {field.name: bytes(field.data).rstrip(b"\0").decode() for field in fields}
            return plugin(json.loads(given.get(_STATE) or _state(json.loads(given[CALL]), [])))

    return Creator()


def _state(attributes: dict[str, Any], binaries: Sequence[Binary]) -> str:
    """What an engine holds of a node."""
    held = [asdict(binary) | {"code": base64.b64encode(binary.code).decode()} for binary in binaries]
    return json.dumps({"attributes": attributes, "binaries": held})


def _plugin(trt: Any, name: str, sm: int | None) -> type:  # noqa: C901 - the package's classes are written where it is known
    kinds = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    types = package.types(trt)

    class KernelPlugin(*kinds):  # type: ignore[misc]
        def __init__(self, state: dict[str, Any]) -> None:
            for kind in kinds:
                kind.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = titled(name), _VERSION, DOMAIN
            self.num_outputs = 1
            self.kernel: Kernel = kernels.load(name)
            self.state = state
            self.functions: list[Function] = []

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return KernelPlugin(self.state)

        def get_output_data_types(self, inputs: Any) -> Any:
            return inputs[:1]

        def get_output_shapes(self, inputs: Any, shapes: Any, builder: Any) -> Any:
            def build(operation: str, left: Any, right: Any) -> Any:
                kind = getattr(trt.DimensionOperation, operation)
                return builder.operation(kind, left, builder.constant(right) if isinstance(right, int) else right)

            given = [[Expression(build, each[axis]) for axis in range(len(each))] for each in inputs]
            named = dict(zip(self.kernel.tensors, given, strict=True))
            made = self.kernel.shape(named, self.state["attributes"])
            return [trt.DimsExprs([each.value for each in made])]

        def supports_format_combination(self, place: int, tensors: Any, inputs: int) -> bool:
            found, first = tensors[place].desc, types.get(tensors[0].desc.type)
            name = self.kernel.tensors[place] if place < inputs else OUTPUT
            known = first in self.kernel.types and types.get(found.type) in self.kernel.kinds(name, str(first))
            return bool(known and found.format == trt.TensorFormat.LINEAR)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            names = (*self.kernel.tensors, OUTPUT)
            found = dict(zip(names, [each.desc for each in (*inputs, *outputs)], strict=True))
            shapes = {key: tuple(size if size >= 0 else FREE for size in desc.dims) for key, desc in found.items()}
            kinds = {key: types[desc.type] for key, desc in found.items()}
            attributes = self.state["attributes"]
            made = compiled(self.kernel, Call(shapes, attributes), kinds, package.device_sm() if sm is None else sm)
            self.state = json.loads(_state(attributes, made))

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            names = (*self.kernel.tensors, OUTPUT)
            largest = {key: tuple(each.max) for key, each in zip(names, (*inputs, *outputs), strict=True)}
            return self.kernel.work(Call(largest, self.state["attributes"])) * _FLOAT32

        def get_fields_to_serialize(self) -> Any:
            text = json.dumps(self.state).encode()
            return trt.PluginFieldCollection([trt.PluginField(_STATE, text, trt.PluginFieldType.CHAR)])

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def set_tactic(self, tactic: int) -> None:
            pass

        def enqueue(self, inputs: Any, outputs: Any, read: Any, made: Any, workspace: int, stream: int) -> None:
            if not self.functions:
                held = self.state["binaries"]
                self.functions = [Function(Binary(**{**each, "code": base64.b64decode(each["code"])})) for each in held]
            names = (*self.kernel.tensors, OUTPUT)
            call = Call(
                {key: tuple(each.dims) for key, each in zip(names, (*inputs, *outputs), strict=True)},
                self.state["attributes"],
            )
            places = {**dict(zip(names, (*read, *made), strict=True)), WORK: workspace}
            for stage, function in zip(self.kernel.stages, self.functions, strict=True):
                launch = stage.launch(call)
                function.launch(launch.grid, [places[tensor] for tensor in stage.tensors], launch.scalars, stream)

    return KernelPlugin
