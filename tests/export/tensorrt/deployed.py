"""What `tensorrt.plugin` makes of a kernel: its own code, on sizes that the builder for RTX gives.

The package itself needs a GPU, and libraries that its vendor's own index alone has. Of its bindings, plugins are in
Python, which runs on the other package's classes; three that those lack stand below. Started as `python -m
tests.export.tensorrt.deployed NAME SM`; writes JSON, of each case with known sizes, then of each with a free batch.
"""

import enum
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import tensorrt_rtx
from onnx import helper

from convkit.export import kernel as kernels
from convkit.export.functions import titled
from convkit.export.kernel import OUTPUT, Case, Kernel
from convkit.export.tensorrt import kernel_plugin, package

READ = ("x", "offset", "mask")
"""Tensors with a batch."""


class QuickPluginCreationRequest(enum.Enum):
    STRICT_AOT, STRICT_JIT = range(2)


class ISymExpr:
    pass


class IPluginV3QuickAOTBuild:
    pass


class Setter(dict[int, Any]):
    """Takes a launch's sizes."""

    nbSymExprs = 0  # noqa: N815 - the package's name


def tensorrt() -> ModuleType:
    """The package, with its `plugin`."""
    bindings = importlib.util.find_spec("tensorrt_bindings")
    assert bindings is not None
    assert bindings.origin is not None
    found = ModuleType("tensorrt")
    own = (QuickPluginCreationRequest, ISymExpr, IPluginV3QuickAOTBuild)
    found.__dict__.update({**vars(tensorrt_rtx), **{each.__name__: each for each in own}, "__name__": "tensorrt"})
    found.__path__ = [str(Path(bindings.origin).parent)]
    found.__spec__ = ModuleSpec("tensorrt", None, is_package=True)
    sys.modules["tensorrt"] = found
    return found


def asked(trt: Any, name: str, case: Case) -> Any:
    """The plugin as a parser makes it of a node."""
    from tensorrt.plugin._lib import _TemplatePluginCreator  # type: ignore[import-not-found]

    told = json.dumps(dict(case.attributes)).encode() + b"\0"
    fields = trt.PluginFieldCollection([trt.PluginField("call", told, trt.PluginFieldType.CHAR)])
    creator = _TemplatePluginCreator(titled(name), "convkit", {"call": (True, str)})
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    return creator.create_plugin(titled(name), "convkit", fields, trt.TensorRTPhase.BUILD, request)


def described(trt: Any, shape: Sequence[int], kind: Any, *, free: bool) -> Any:
    found, plain = trt.DynamicPluginTensorDesc(), trt.PluginTensorDesc()
    plain.dims = trt.Dims([-1, *shape[1:]] if free else list(shape))
    plain.type, plain.format = kind, trt.TensorFormat.LINEAR
    found.desc, found.min, found.opt, found.max = plain, *[trt.Dims(list(shape))] * 3
    return found


def built(trt: Any, plugin: Any, kernel: Kernel, case: Case, inputs: Any, builder: Any, *, free: bool) -> Any:
    """In the order in which a builder asks: types, shapes, formats, the launch and the code."""
    kinds = {name: kind for kind, name in package.types(trt).items()}
    types = [kinds[str(case.tensors[tensor].dtype).removeprefix("torch.")] for tensor in kernel.tensors]
    made = plugin.get_output_data_types(types, [case.tensors[tensor].ndim for tensor in kernel.tensors])
    (shape,) = plugin.get_output_shapes(inputs, [], builder)
    shapes = [*(tuple(case.tensors[tensor].shape) for tensor in kernel.tensors), kernel.call(case).shapes[OUTPUT]]
    open_ = [free and tensor in (*READ, OUTPUT) for tensor in (*kernel.tensors, OUTPUT)]
    tensors = [
        described(trt, own, kind, free=one) for own, kind, one in zip(shapes, [*types, *made], open_, strict=True)
    ]
    plugin.get_supported_format_combinations(tensors, len(types))
    plugin.configure_plugin(tensors[:-1], tensors[-1:])
    tactics = plugin.get_valid_tactics()
    plugin.set_tactic(0)
    launch, sizes = SimpleNamespace(), Setter()
    plugin.get_launch_params(inputs, tensors, len(types), launch, sizes, builder)
    plain = [each.desc for each in tensors]
    name, code = plugin.get_kernel(plain[:-1], plain[-1:])
    return {
        "types": [str(one) for one in made] == [str(types[0])],
        "tactics": tactics,
        "shape": [known(shape[axis]) for axis in range(len(shape))],
        "grid": [known(getattr(launch, f"grid_{axis}").expr) for axis in "xyz"],
        "block": [known(getattr(launch, f"block_{axis}").expr) for axis in "xyz"],
        "shared": known(launch.shared_mem.expr),
        "sizes": [known(sizes[turn].expr) for turn in range(sizes.nbSymExprs)],
        "function": f".entry {name}(" in code.decode(),
    }


def known(size: Any) -> int | None:
    """None for what hangs on a free size."""
    return int(size.get_constant_value()) if size.is_constant() else None


def asking(trt: Any, name: str) -> list[Any]:
    """Register a plugin of the other kind, Asks, and what it finds: sizes, and what builds more of them, a builder
    gives to such alone. What it is asked to build is the last entry of the list.
    """
    kernel, found = kernels.load(name), list[Any]()
    kinds = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    class Asks(*kinds):  # type: ignore[misc]
        def __init__(self) -> None:
            for kind in kinds:
                kind.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace, self.num_outputs = "Asks", "1", "convkit", 1

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Asks()

        def get_output_data_types(self, inputs: Any) -> Any:
            return inputs[:1]

        def get_output_shapes(self, inputs: Any, shapes: Any, builder: Any) -> Any:
            case, free = found.pop()
            plugin = asked(trt, name, case)
            found.append(built(trt, plugin, kernel, case, inputs, builder, free=free))
            return inputs[:1]

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = "Asks", "1", "convkit"
            self.field_names = trt.PluginFieldCollection([trt.PluginField("call", b"", trt.PluginFieldType.CHAR)])

        def create_plugin(self, node: str, fields: Any, phase: Any) -> Any:
            return Asks()

    trt.get_plugin_registry().register_creator(Creator(), "convkit")
    return found


def parsed(trt: Any, kernel: Kernel, case: Case, *, free: bool) -> None:
    """Let the builder's parser read one node, and so ask."""
    values = []
    for tensor in kernel.tensors:
        own = case.tensors[tensor]
        shape = ["N", *own.shape[1:]] if free and tensor in READ else list(own.shape)
        kind = helper.np_dtype_to_tensor_dtype(own.numpy().dtype)
        values.append(helper.make_tensor_value_info(tensor, kind, shape))
    told = {"plugin_namespace": "convkit", "plugin_version": "1", "call": "asks"}
    node = helper.make_node("Asks", list(kernel.tensors), [OUTPUT], domain="convkit", **told)
    output = helper.make_tensor_value_info(OUTPUT, values[0].type.tensor_type.elem_type, None)
    graph = helper.make_graph([node], "net", values, [output])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("convkit", 1)]
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(log).create_network(0)
    file = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    assert trt.OnnxParser(network, log).parse(file)


def main(name: str, sm: int) -> None:
    trt = tensorrt()
    kernel_plugin.register(trt, [name], sm)
    kernel, found = kernels.load(name), asking(trt, name)
    for free in (False, True):
        for case in kernel.cases():
            found.append((case, free))
            parsed(trt, kernel, case, free=free)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
