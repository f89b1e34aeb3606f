"""A candidate of a bench: a model, the engine that runs it and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from convkit.compress import package, parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import Options, knobs

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

    Knobs are the engine's own, and `plan=FILE` those of a plan; they override `options` for this candidate, the last
    one where it is told twice.
    """
    head, colon, path = text.partition(":")
    name, *words = head.split(",")
    if not colon or name not in parts.names("runtimes"):
        if engine is None:
            raise ConvkitError(f"{text!r} names no engine", hint=f"{_HINT}, or give --engine")
        parts.load("runtimes", engine)
        return Candidate(text, engine, package.resolve(text), options)
    if not path:
        raise ConvkitError(f"{text!r} names no model", hint=_HINT)
    for word in words:
        options = knobs.turned(options, name, _knobs(word, name, options))
    return Candidate(text, name, package.resolve(path), options)


def _knobs(word: str, engine: str, options: Options) -> knobs.Knobs:
    """What `knob=value` sets, or the plan that `plan=FILE` names."""
    key, _, value = word.partition("=")
    if key == "plan":
        from convkit.compress import plan

        return plan.read(value).engine
    return dict([knobs.parse(word, engine, options)])
