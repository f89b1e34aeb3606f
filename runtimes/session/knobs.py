"""Knobs: the settings that an engine has, what each does, and which values are worth trying on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, nearest

if TYPE_CHECKING:
    from convkit.runtimes.session import Options, Runtime

Value = bool | int | str
Knobs = Mapping[str, Value]
"""Values of knobs, by name: what a plan and a manifest say of an engine."""
_SWITCH = {"on": True, "off": False}


@dataclasses.dataclass(frozen=True, slots=True)
class Knob:
    """A setting of an engine, the field `name` of Options.

    `values`: what it can be; none where there is no list of them. `tried`: those of them that make some network faster
    without changing what it computes, but for the order of its sums.
    """

    name: str
    about: str
    values: tuple[Value, ...] = ()
    tried: tuple[Value, ...] = ()


def switch(name: str, about: str, *, tried: bool = True) -> Knob:
    """A knob that is on or off; both are worth trying where it is `tried`."""
    return Knob(name, about, (True, False), (True, False) if tried else ())


THREADS = Knob("threads", "threads that share a call")
PLUGIN = Knob("plugin", "layers of your own: a library, or a .py with register(trt)")
WEIGHTS = Knob("weights", "weights file of a MODULE:FUNCTION model")


def turned(options: Options, engine: str, knobs: Knobs) -> Options:
    """`options` with some knobs of `engine` set; raises ConvkitError for one that it has not, or a value of none."""
    known = _known(engine)
    for name, value in knobs.items():
        if name not in known:
            hint = nearest(name, known, "its knobs: " + (", ".join(known) or "none"))
            raise ConvkitError(f"{engine} has no knob {name!r}", hint=hint)
        held = getattr(options, name)
        kind = str if held is None else type(held)
        if type(value) is not kind or (known[name].values and value not in known[name].values):
            raise ConvkitError(f"{name} is {value!r}", hint=about(known[name], options))
    return dataclasses.replace(options, **dict(knobs))  # type: ignore[arg-type]  # checked one by one


def parse(text: str, engine: str, options: Options) -> tuple[str, Value]:
    """The knob of `engine` and its value that `NAME=VALUE` says."""
    name, _, word = text.partition("=")
    known = _known(engine)
    held = getattr(options, name, None) if name in known else None
    value: Value = word
    try:
        if isinstance(held, bool):
            value = _SWITCH[word]
        elif isinstance(held, int):
            value = int(word)
    except (ValueError, KeyError) as error:
        raise ConvkitError(f"{text!r} is no value of {name}", hint=about(known[name], options)) from error
    turned(options, engine, {name: value})
    return name, value


def differing(options: Options, base: Options) -> dict[str, Value]:
    """The knobs by which `options` are others than `base`."""
    fields = [field.name for field in dataclasses.fields(options)]
    found = {name: getattr(options, name) for name in fields if getattr(options, name) != getattr(base, name)}
    return {name: value for name, value in found.items() if isinstance(value, (bool, int, str))}


def in_words(knobs: Knobs) -> str:
    """Knobs as they are written before a model: "spinning=off, threads=1"."""
    return ", ".join(f"{name}={_word(value)}" for name, value in knobs.items())


def about(knob: Knob, options: Options) -> str:
    """The values that a knob can have, and what it does: "spinning=on|off: …"."""
    listed = "|".join(map(_word, knob.values))
    free = "N" if isinstance(getattr(options, knob.name), int) else "FILE"
    return f"{knob.name}={listed or free}: {knob.about}"


def _word(value: Value) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _known(engine: str) -> dict[str, Knob]:
    runtime: Runtime = parts.load("runtimes", engine)
    return {knob.name: knob for knob in runtime.knobs}
