"""A plugin in Python, as a user writes one: the operator Twice, whose result is twice what it reads."""

from typing import Any


def register(trt: Any) -> None:
    """Of either package: `trt` is its module."""
    creator = _creator(trt, _plugin(trt))
    trt.get_plugin_registry().register_creator(creator, "")
    _KEPT.append(creator)


_KEPT: list[Any] = []
"""The registry keeps no reference of its own."""


def _plugin(trt: Any) -> Any:  # noqa: C901 - a class in a function, for the package is a parameter
    class Twice(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
        def __init__(self) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace, self.num_outputs = "Twice", "1", "", 1

        def get_capability_interface(self, type: Any) -> Any:  # noqa: A002 - TensorRT's name
            return self

        def get_output_data_types(self, input_types: Any) -> Any:
            return [input_types[0]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, exprBuilder: Any) -> Any:
            return [trt.DimsExprs(inputs[0])]

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            return bool(
                in_out[pos].desc.type == trt.DataType.FLOAT and in_out[pos].desc.format == trt.TensorFormat.LINEAR
            )

        def configure_plugin(self, in_: Any, out: Any) -> None:
            pass

        def on_shape_change(self, in_: Any, out: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def get_workspace_size(self, input_desc: Any, output_desc: Any) -> int:
            return 0

        def get_valid_tactics(self) -> Any:
            return []

        def set_tactic(self, tactic: int) -> None:
            pass

        def enqueue(self, *_: Any) -> None:
            raise NotImplementedError("a build runs nothing")

        def clone(self) -> Any:
            return Twice()

    return Twice


def _creator(trt: Any, plugin: Any) -> Any:
    class Creator(trt.IPluginCreatorV3One):
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = "Twice", "1", ""
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fc: Any, phase: Any) -> Any:
            return plugin()

    return Creator()
