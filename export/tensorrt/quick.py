"""convkit's kernels as quickly deployable plugins: the engine holds code and launch, and runs without Python.

`tensorrt.plugin` has them, the package for RTX has not. A node is one launch, which gets what the node reads, sizes,
and what it makes: kernels of several stages, or with memory for work, stay what kernel_plugin.py makes of them.
"""

from __future__ import annotations

import importlib
import json
import operator
from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any

from convkit.compress.errors import ConvkitError
from convkit.compress.membership import DOMAIN
from convkit.export import kernel as kernels
from convkit.export.compiled import WARP, assembly
from convkit.export.functions import titled
from convkit.export.kernel import FREE, OUTPUT, WORK, Call, Kernel
from convkit.export.kernels import CALL
from convkit.export.tensorrt import package
from convkit.export.tensorrt.expression import Expression, plain

_OPERATIONS = {"SUM": operator.add, "SUB": operator.sub, "PROD": operator.mul, "FLOOR_DIV": operator.floordiv}


def module(trt: Any) -> Any | None:
    """The part of the package `trt` that takes code compiled ahead of time, where it has one."""
    try:
        found = importlib.import_module(f"{trt.__name__}.plugin")
    except ImportError:
        return None
    return found if hasattr(found, "aot_impl") else None


def takes(kernel: Kernel) -> bool:
    """Whether it is one launch on the node's own tensors."""
    return len(kernel.stages) == 1 and WORK not in kernel.stages[0].tensors


def register(trt: Any, plugin: Any, name: str, sm: int | None) -> None:
    """Register the kernel called `name` with `plugin`, the module; code is for the compute capability `sm`, None for
    that of the GPU at hand.
    """
    kernel, title = kernels.load(name), f"{DOMAIN}::{titled(name)}"
    types = package.types(trt)

    def described(*tensors: Any, **attributes: str) -> Any:
        shapes = _symbols(dict(zip(kernel.tensors, tensors, strict=True)))
        made = kernel.shape(shapes, _attributes(attributes[CALL]))
        return plugin.from_shape_expr(tuple(map(plain, made)), tensors[0].dtype)

    def implemented(*given: Any) -> Any:
        *read, told, outputs, _ = given
        tensors = dict(zip((*kernel.tensors, OUTPUT), (*read, *outputs), strict=True))
        kinds = {key: types.get(each.dtype, str(each.dtype)) for key, each in tensors.items()}
        check(name, kernel, kinds)
        attributes, (stage,) = _attributes(told), kernel.stages
        sizes = {key: tuple(size if size >= 0 else FREE for size in each.shape) for key, each in tensors.items()}
        code = assembly(stage, Call(sizes, attributes), kinds, package.device_sm() if sm is None else sm)
        launch = stage.launch(Call(_symbols(tensors), attributes))
        asked = plugin.KernelLaunchParams()
        for axis, programs in zip("xyz", launch.grid, strict=False):
            setattr(asked, f"grid_{axis}", plain(programs))
        asked.block_x, asked.shared_mem = WARP * code.warps, code.shared
        scalars = [plugin.SymInt32(plain(size)) for size in launch.scalars]
        return code.name, code.text, asked, plugin.SymIntExprs.from_tuple(scalars)

    described.__signature__ = _signature(  # type: ignore[attr-defined]
        dict.fromkeys(kernel.tensors, plugin.TensorDesc) | {CALL: str}, plugin.TensorDesc
    )
    implemented.__signature__ = _signature(  # type: ignore[attr-defined]
        dict.fromkeys(kernel.tensors, plugin.TensorDesc)
        | {CALL: str, "outputs": tuple[plugin.TensorDesc], "tactic": int},
        tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs],
    )
    plugin.register(title)(described)
    plugin.aot_impl(title)(implemented)


def _signature(parameters: Mapping[str, Any], result: Any) -> Signature:
    """What the package reads of a function to know its tensors and attributes by."""
    found = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in parameters.items()]
    return Signature(found, return_annotation=result)


def _attributes(told: str) -> dict[str, Any]:
    """Words that the parser hands over end in a 0."""
    found: dict[str, Any] = json.loads(told.rstrip("\0"))
    return found


def _symbols(tensors: Mapping[str, Any]) -> dict[str, list[Expression]]:
    return {name: [Expression(_built, size) for size in each.shape_expr] for name, each in tensors.items()}


def _built(operation: str, left: Any, right: Any) -> Any:
    return _OPERATIONS[operation](left, right)


def check(name: str, kernel: Kernel, kinds: Mapping[str, str]) -> None:
    """Raise ConvkitError for types, by tensor, that the kernel has no code for: such a plugin is not asked which it
    takes, but given what the file has.
    """
    first = kinds[kernel.tensors[0]]
    wrong = [tensor for tensor, kind in kinds.items() if kind not in kernel.kinds(tensor, first)]
    if wrong or first not in kernel.types:
        told = ", ".join(f"{tensor} in {kind}" for tensor, kind in kinds.items())
        raise ConvkitError(f"kernel {name} has no code for {told}", hint="leave out --kernel for this network")
