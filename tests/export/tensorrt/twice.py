"""A plugin in Python: `Twice`, whose output is `factor` times its input, 2 unless the node says otherwise.

TensorRT asks it everything else as it builds, `enqueue` as the engine runs.
"""

from typing import Any


def register(trt: Any) -> None:  # noqa: C901 - classes of the package's are written where it is known
    """Called with the package, tensorrt or tensorrt_rtx: one file serves both."""
    import numpy as np

    name, version, namespace = "Twice", "1", "convkit"
    kinds = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    class Twice(*kinds):  # type: ignore[misc]
        def __init__(self, factor: float) -> None:
            for kind in kinds:
                kind.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = name, version, namespace
            self.num_outputs = 1
            self.factor = factor

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Twice(self.factor)

        def get_output_data_types(self, inputs: Any) -> Any:
            return inputs

        def get_output_shapes(self, inputs: Any, shapes: Any, expressions: Any) -> Any:
            return [trt.DimsExprs(inputs[0])]

        def supports_format_combination(self, place: int, tensors: Any, inputs: int) -> bool:
            found = tensors[place].desc
            return bool(found.type == trt.float32 and found.format == trt.TensorFormat.LINEAR)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def get_fields_to_serialize(self) -> Any:
            factor = np.array([self.factor], np.float32)
            return trt.PluginFieldCollection([trt.PluginField("factor", factor, trt.PluginFieldType.FLOAT32)])

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def set_tactic(self, tactic: int) -> None:
            pass

        def enqueue(self, *pointers: Any) -> None:
            raise NotImplementedError  # built here, never launched: a GPU would run one's own kernel, in Triton or CUDA

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = name, version, namespace
            factor = trt.PluginField("factor", np.array([], np.float32), trt.PluginFieldType.FLOAT32)
            self.field_names = trt.PluginFieldCollection([factor])

        def create_plugin(self, node: str, fields: Any, phase: Any) -> Any:
            given = {field.name: field.data for field in fields}
            return Twice(float(given["factor"][0]) if "factor" in given else 2.0)

    trt.get_plugin_registry().register_creator(Creator(), namespace)
