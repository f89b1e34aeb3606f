"""Model-local functions put in the place of their calls; nodes of a novel convolution know that they are its."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError

from convkit.compress import membership
from convkit.compress.errors import ConvkitError

_NUMBERED = re.compile(r"__\d+$")
"""What the inliner adds to a name."""


def inlined(path: Path, model: onnx.ModelProto, hint: str) -> onnx.ModelProto:
    """`model` without functions. Raises ConvkitError where they do not fit, with `hint`."""
    if not model.functions:
        return model
    _mark(model)
    try:
        found = onnx.inliner.inline_local_functions(model, convert_version=True)
    except (RuntimeError, ValueError, EncodeError, DecodeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConvkitError(f"{path}: its local functions cannot be inlined: {line}", hint=hint) from error
    for node in found.graph.node:
        if membership.tag(node):
            node.name = _NUMBERED.sub("", node.name)
    return found


def _mark(model: onnx.ModelProto) -> None:
    """Give each call of a novel convolution a body of its own, whose nodes bear the names they have in the network."""
    bodies = {body.name: body for body in model.functions if body.domain == membership.DOMAIN}
    for turn, call in enumerate(model.graph.node):
        body = bodies.get(call.op_type) if call.domain == membership.DOMAIN else None
        if body is None or not any(membership.tag(node) for node in body.node):
            continue
        own = model.functions.add()
        own.CopyFrom(body)
        own.name = call.op_type = f"{body.name}_at_{turn}"
        for node in own.node:
            node.name = f"{call.name}.{node.name}".lstrip(".")
            if membership.tag(node):
                membership.retold(node, membership.tag(node) + call.name)
