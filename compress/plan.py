"""The Plan: everything that is decided about a network, small enough to read, diff and edit by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convkit.compress import parts, record, schema
from convkit.compress.errors import ConvkitError

SCHEMA_VERSION = 1
TAYLOR = "taylor"
"""The usual way by which channels are ranked, of those in `compress/importance`."""
_PIN = re.compile(r"[a-z]\w*(/[a-z]\w*)?")
_FORM = re.compile(r"[a-z]\w*:[0-9]+(,[0-9]+)*")
_LARGEST = (2 - 2**-23) * 2.0**127
"""Of float32, which scales are in."""
_LONGEST_KEY = 1000
"""Characters; YAML reads a key on its value's line up to 1024 of them."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Formats of one layer: of its weight (None: it has none, or keeps it in float) and of its activations.

    `weight_range` names how the weight's ranges are found: "max", "mse" (least squared error) or "gain" (the same, but
    that each row keeps its size counts more); `granularity` what shares one: the "tensor", each output "channel", or
    a block of input channels ("block:32").
    """

    activation: str
    weight: str | None = None
    weight_range: str = "max"
    granularity: str = "channel"


@dataclass(frozen=True, slots=True)
class Range:
    """Real interval that a tensor's codes cover, and the calibrator that chose it."""

    low: float
    high: float
    calibrator: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` does to a model: the methods in order, then a format per layer and a range per tensor.

    A layer that is not listed stays in float. `engine` are the knobs that the target's engine is to run the network
    with, as far as they are not its defaults: they are no part of the file. `pins`: what a search must leave as it is,
    by layer: the name of a format of weights, "float", or both formats ("int8/uint8"); they concern a search alone.
    `forms`: layers that stand as chains of smaller ones, by form and ranks ("tucker2:8,12"); `layers` and `ranges` name
    those as CONV.0, CONV.1, … `widths`: channels of layers that are narrower than they were, by the first layer of
    those that are coupled.
    """

    model: str
    target: str
    methods: tuple[str, ...] = ()
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    engine: Mapping[str, bool | int | str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    importance: str = TAYLOR
    """By what channels are ranked, of those that `widths` leave."""

    @property
    def changes(self) -> bool:
        """Whether it leaves anything of a model other than it is."""
        return bool(self.layers or self.forms or self.widths)

    @property
    def digest(self) -> str:
        """sha256 of the plan's text."""
        return record.digest_bytes(dump(self).encode())


def dump(plan: Plan) -> str:
    """`plan` as YAML: a line a pin, a line a layer, a line a range."""
    head = [
        "# convkit plan: remove a layer's line to keep it in float; `convkit export --plan FILE --data …` applies it.",
        '# pins ("conv1": int8, "conv2": float) hold where `convkit quantize --plan FILE --formats …` searches.',
        f"schema_version: {SCHEMA_VERSION}",
        f"model: {_quoted(plan.model)}",
        f"target: {_quoted(plan.target)}",
        f"methods: [{', '.join(plan.methods)}]",
        *([f"engine: {_flow(plan.engine)}"] if plan.engine else []),
        *([f"importance: {plan.importance}"] if plan.widths and plan.importance != TAYLOR else []),
    ]
    pins = [f"  {_key(name)}: {text}" for name, text in plan.pins.items()]
    forms = [f"  {_key(name)}: {_quoted(text)}" for name, text in plan.forms.items()]
    widths = [f"  {_key(name)}: {width}" for name, width in plan.widths.items()]
    layers = [f"  {_key(name)}: {{{_fields(layer)}}}" for name, layer in plan.layers.items()]
    ranges = [
        f"  {_key(name)}: {{low: {r.low!r}, high: {r.high!r}, calibrator: {r.calibrator}}}"
        for name, r in plan.ranges.items()
    ]
    shapes = {name: block for name, block in (("widths", widths), ("forms", forms)) if block}
    blocks = {"pins": pins, **shapes, "layers": layers, "ranges": ranges}
    lines = [line for name, block in blocks.items() for line in (f"{name}:" if block else f"{name}: {{}}", *block)]
    return "\n".join([*head, *lines]) + "\n"


def _key(name: str) -> str:
    """A tensor's name as a YAML key."""
    quoted = _quoted(name)
    return quoted if len(quoted) < _LONGEST_KEY else f"? {quoted}\n  "


def _quoted(name: str) -> str:
    """Always quoted, so that no name can be misread."""
    import yaml

    return yaml.safe_dump(name, default_style='"', allow_unicode=True, width=math.inf).strip()


def _flow(knobs: Mapping[str, bool | int | str]) -> str:
    """Knobs on one line, in their order."""
    import yaml

    return yaml.safe_dump(dict(knobs), default_flow_style=True, sort_keys=False, width=math.inf).strip()


def _fields(layer: LayerPlan) -> str:
    shown = [f"activation: {layer.activation}"]
    if layer.weight is not None:
        scales = [] if layer.granularity == "channel" else [f'granularity: "{layer.granularity}"']
        shown = [f"weight: {layer.weight}", f"weight_range: {layer.weight_range}", *scales, *shown]
    return ", ".join(shown)


_HINT = "`convkit quantize` writes one"


def read(path: str | Path) -> Plan:
    """The Plan in a YAML file; anything that is not one is the user's error."""
    return _made(str(path), schema.read(path, "plan", _HINT))


def loads(text: str) -> Plan:
    """The Plan whose text `dump` made; raises ConvkitError for any other."""
    return _made("the plan", schema.loads(text, "the plan", "plan", _HINT))


def _made(where: str, text: dict[str, Any]) -> Plan:
    version = text.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ConvkitError(f"{where} has schema_version {version}", hint=f"this convkit reads {SCHEMA_VERSION}")
    try:
        return _parse({name: value for name, value in text.items() if value is not None})
    except ValueError as error:
        raise ConvkitError(f"{where} is no plan: {error}", hint=_HINT) from error


def _parse(text: dict[str, Any]) -> Plan:
    schema.fields("the plan", text, schema.of(Plan), ("model", "target"))
    methods = text.pop("methods", [])
    if not all(isinstance(method, str) for method in methods):
        raise ValueError(f"'methods' of the plan is {methods!r}")
    layers = {str(name): _layer(str(name), given) for name, given in text.pop("layers", {}).items()}
    ranges = {str(name): _range(str(name), given) for name, given in text.pop("ranges", {}).items()}
    engine = {str(name): _knob(str(name), given) for name, given in text.pop("engine", {}).items()}
    pins = {str(name): _pin(str(name), given) for name, given in text.pop("pins", {}).items()}
    forms = {str(name): _form(str(name), given) for name, given in text.pop("forms", {}).items()}
    widths = {str(name): _width(str(name), given) for name, given in text.pop("widths", {}).items()}
    parts.path("compress/importance", text.get("importance", TAYLOR), ".py")
    return Plan(
        pins=pins,
        forms=forms,
        widths=widths,
        layers=layers,
        ranges=ranges,
        methods=tuple(methods),
        engine=engine,
        **text,
    )


def _knob(name: str, given: object) -> bool | int | str:
    if not isinstance(given, (bool, int, str)):
        raise ValueError(f"{name!r} of its engine is {given!r}")  # noqa: TRY004 - one kind of error for all
    return given


def _pin(name: str, given: object) -> str:
    if not isinstance(given, str) or not _PIN.fullmatch(given):
        raise ValueError(f"the pin of {name!r} is {given!r}, not the name of a format")
    return given


def _form(name: str, given: object) -> str:
    if not isinstance(given, str) or not _FORM.fullmatch(given):
        raise ValueError(f"the form of {name!r} is {given!r}, not a name and ranks such as tucker2:8,12")
    return given


def _width(name: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"the width of {name!r} is {given!r}, not a number of channels")
    return given


def _layer(name: str, given: object) -> LayerPlan:
    return LayerPlan(**schema.fields(f"layer {name!r}", given, schema.of(LayerPlan), ("activation",)))


def _range(name: str, given: object) -> Range:
    where = f"the range of {name!r}"
    known = schema.fields(where, given, schema.of(Range), tuple(schema.of(Range)))
    low, high = (schema.number(f"{end!r} of {where}", known[end]) for end in ("low", "high"))
    largest = max(low, high, key=abs)
    if abs(largest) > _LARGEST:
        raise ValueError(f"{where} reaches {largest}, which is more than float32 holds")
    if low > high:
        raise ValueError(f"{where} ends at {high}, before it begins at {low}")
    return Range(low, high, known["calibrator"])
