"""A candidate of a bench: a model, the engine that runs it and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from convkit.compress import package, parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import Options

_HINT = "write ENGINE:MODEL, such as onnxruntime:net.onnx or openvino,precision=bf16:net.onnx"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is timed, under the name it has in tables and gates."""

    name: str
    engine: str
    path: str
    options: Options = field(default_factory=Options)


def parse(text: str, engine: str | None, options: Options) -> Candidate:
    """`ENGINE[,knob=value...]:MODEL`, or only MODEL when `engine` is given; the text is the candidate's name.

    Knobs are the fields of Options; they override `options` for this candidate.
    """
    head, colon, path = text.partition(":")
    name, *knobs = head.split(",")
    if not colon or name not in parts.names("runtimes"):
        if engine is None:
            raise ConvkitError(f"{text!r} names no engine", hint=f"{_HINT}, or give --engine")
        parts.load("runtimes", engine)
        return Candidate(text, engine, package.resolve(text), options)
    if not path:
        raise ConvkitError(f"{text!r} names no model", hint=_HINT)
    return Candidate(text, name, package.resolve(path), dataclasses.replace(options, **dict(map(_knob, knobs))))


def _knob(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        match key:
            case "threads":
                return key, int(value)
            case "spinning":
                return key, {"on": True, "off": False}[value]
            case "optimization" | "precision" | "weights":
                return key, value
    except (ValueError, KeyError) as error:
        raise ConvkitError(f"{text!r} is no value of {key}", hint=_KNOBS) from error
    raise ConvkitError(f"there is no knob {key!r}", hint=_KNOBS)


_KNOBS = "knobs: threads=2, spinning=on|off, optimization=none|basic|extended|all, precision=f32|bf16|f16, weights=FILE"
