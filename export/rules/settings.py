"""Operators that the parser has, in a form that it does not take."""

from collections.abc import Callable, Iterator, Mapping

import onnx

from convkit.export.lint import Broken, File, Rule

_ONE_OUTPUT = ("MaxPool", "LayerNormalization")
_AXES = ("Squeeze", "Unsqueeze")
_NORMS = (1, 2)


def look(file: File) -> Iterator[Broken]:
    """Nodes in such a form."""
    for node in file.nodes:
        if node.domain in ("", "ai.onnx"):
            for form in _FORMS:
                if words := form(node, file):
                    yield node, *words


def _more_outputs(node: onnx.NodeProto, _: File) -> tuple[str, str] | None:
    if node.op_type not in _ONE_OUTPUT or not any(node.output[1:]):
        return None
    return f"the parser takes no {node.op_type} with more than one output", "leave the others out"


def _norm(node: onnx.NodeProto, _: File) -> tuple[str, str] | None:
    power = _attributes(node).get("p", 2)
    if node.op_type not in ("LpPool", "LpNormalization") or power in _NORMS:
        return None
    return f"its p is {power}, not 1 or 2", "write Pow and AveragePool"


def _reduction(node: onnx.NodeProto, _: File) -> tuple[str, str] | None:
    reduction = str(_attributes(node).get("reduction", "none"))
    if node.op_type != "ScatterND" or reduction == "none":
        return None
    return f"it has the reduction {reduction!r}", "scatter into zeros, and add those"


def _modulo(node: onnx.NodeProto, file: File) -> tuple[str, str] | None:
    if node.op_type != "Mod" or _attributes(node).get("fmod", 0) or "FLOAT" not in file.kind(node.input[0]):
        return None
    return "it divides floats without fmod", "set fmod to 1"


def _computed_axes(node: onnx.NodeProto, file: File) -> tuple[str, str] | None:
    takes = node.op_type in _AXES or node.op_type.startswith("Reduce")
    if not takes or len(node.input) == 1 or not node.input[1] or node.input[1] in file.tensors:
        return None
    axes = node.input[1]
    if axes in file.makers:  # the parser folds what is made of constants and sizes
        return None
    return "its axes are an input of the network", "store them as a constant"


def _attributes(node: onnx.NodeProto) -> Mapping[str, object]:
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


_FORMS: tuple[Callable[[onnx.NodeProto, File], tuple[str, str] | None], ...] = (
    _more_outputs,
    _norm,
    _reduction,
    _modulo,
    _computed_axes,
)

PART = Rule(look)
