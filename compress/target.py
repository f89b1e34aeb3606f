"""The Target: what a kind of hardware, through its engine, really runs in low precision. Data, read from
`recipes/targets/NAME.yaml`; no code asks for an engine by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convkit.compress import format as formats
from convkit.compress import parts, schema
from convkit.compress.errors import ConvkitError


@dataclass(frozen=True, slots=True)
class Rule:
    """How the engine runs one operator in INT8.

    `output` is "quantized" when its kernel only exists with a quantized result, "any" when it also gives float.
    `fuses` are the activations the engine runs inside it. `same_range`: inputs and output share one scale (the
    operator only moves or picks codes); `on_codes`: it must be given the codes themselves, for the engine would not see
    that it may move them. `bias`: the type its bias is stored in, None when it stays float. `activation`: the format
    that its kernel reads, where that is not the target's.
    """

    output: str = "quantized"
    fuses: tuple[str, ...] = ()
    same_range: bool = False
    on_codes: bool = False
    bias: str | None = None
    activation: str | None = None
    weight: bool = False
    """Its second input is a weight (Conv, Gemm, MatMul)."""
    formats: tuple[str, ...] = ()
    """The formats that its kernels have, the usual one first; where there are none, all that the target has."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How the engine runs numbers of a format: in kernels that compute in `speed`; in "fp32" they are dequantized, and
    save storage alone. `activation`, `weight`: the format that activations or weights have instead. `whole`: it is a
    setting of the whole network, not of a layer. `missing`: the engine has it not, or computes something else.
    `positions`: the most that a convolution's kernel may have, 0 for any; a larger one runs in float. `products`: the
    fewest that a kernel of one position must sum for each result, where only a single one may be computed.
    """

    speed: str = "fp32"
    activation: str | None = None
    weight: str | None = None
    whole: bool = False
    missing: bool = False
    positions: int = 0
    products: int = 0


@dataclass(frozen=True, slots=True)
class Overflow:
    """Processors whose kernels add two products of bytes in 16 bits: those with all the instructions `where` and none
    of `unless`. There the target's weights are in the format `weight`, whose products cannot exceed them.
    """

    where: tuple[str, ...]
    unless: tuple[str, ...]
    weight: str

    def strikes(self, flags: Collection[str]) -> bool:
        """Whether a processor with these instruction sets is one of them."""
        return set(self.where) <= set(flags) and not set(self.unless) & set(flags)


@dataclass(frozen=True, slots=True)
class Roofline:
    """A device's figures, from which times are estimated where nobody measured: what kernels reach, not the peaks of
    data sheets. `macs_per_second` by the format of the activations; `layer_seconds`: what starting a kernel takes."""

    macs_per_second: Mapping[str, float]
    bytes_per_second: float
    layer_seconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """An engine on a kind of device, and where Q/DQ may stand for it."""

    name: str
    engine: str
    about: str
    opset: int
    activation: str
    weight: str
    shapes: str = "codes"
    """What an operator that asks for a quantized tensor's shape reads: its "codes", or the "numbers" they stand for.
    Read from the tensor itself it would keep the engine from fusing the operator that makes it."""
    biases: str = "inside"
    """Where the bias of a quantized Conv stands in a network that asks for sizes: "inside" it, or "behind" it in an
    Add of its own."""
    packed: bool = True
    """Whether weights of few bits are packed in its files; they take a byte each for an engine that has not what
    unpacks them."""
    requantizes: tuple[str, ...] = ()
    """Operators whose float weight the engine would quantize by itself where they stand between quantized tensors."""
    stand_in: str = ""
    """The engine that computes the numbers of this one where it is not at hand; "" where nothing does."""
    roofline: Roofline | None = None
    overflow: Overflow | None = None
    formats: Mapping[str, Runs] = field(default_factory=dict)
    """The formats that have kernels; those that are not listed only save storage."""
    operators: Mapping[str, Rule] = field(default_factory=dict)
    placements: tuple[Mapping[str, Any], ...] = ()
    """Alternatives to measure: each has a `name` and says which operators (`float`) and which ends of the network
    (`ends`: first, last) stay in float."""

    @property
    def narrower(self) -> Mapping[str, str]:
        """The formats that weights have here instead of those that are asked for, by the latter's names."""
        return {name: runs.weight for name, runs in self.formats.items() if runs.weight is not None}

    def runs_layers_in(self, name: str) -> bool:
        """Whether single layers run in the format, in kernels of its own."""
        runs = self.formats.get(name, Runs())
        return runs.speed == name and not runs.whole

    def on(self, flags: Collection[str]) -> Target:
        """The target as it is on a processor with the instruction sets `flags`."""
        if self.overflow is None or not self.overflow.strikes(flags):
            return self
        known = self.formats.get(self.weight, Runs())
        promoted = {self.weight: replace(known, weight=self.overflow.weight)}
        return replace(self, weight=self.overflow.weight, formats={**self.formats, **promoted})


_TOP: schema.Types = {name: kind for name, kind in schema.of(Target).items() if name != "name"}
_PLACEMENT: schema.Types = {"name": str, "methods": list, "float": list, "ends": list}
_CHOICES = {
    "output": ("quantized", "any"),
    "shapes": ("codes", "numbers"),
    "biases": ("inside", "behind"),
    "ends": ("first", "last"),
}
_HINT = "compare it with those of `convkit list targets`"


def load(name: str) -> Target:
    """The target called `name`, or the one in the YAML file `name`; a file that holds none is the user's error.

    A file may be `like` a target of convkit: then it says only what is different.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else parts.path("recipes/targets", name)
    text = _text(path)
    try:
        return _parse(path.stem, text)
    except (ValueError, ConvkitError) as error:
        raise ConvkitError(f"{path} is no target: {error}", hint=_HINT) from error


def _text(path: Path) -> dict[str, Any]:
    """What the file says, and what those that it is like say beside."""
    text = schema.read(path, "target", _HINT)
    like = text.pop("like", None)
    return text if like is None else _text(parts.path("recipes/targets", str(like))) | text


def _parse(name: str, text: dict[str, Any]) -> Target:
    schema.fields("it", text, _TOP, ("engine", "about", "opset", "activation", "weight", "operators"))
    _require_choice("shapes", text.get("shapes", "codes"))
    _require_choice("biases", text.get("biases", "inside"))
    rules = {str(operator): _rule(str(operator), rule) for operator, rule in text.pop("operators").items()}
    placements = tuple(_placement(given) for given in text.pop("placements", ()))
    own = (rule.activation for rule in rules.values() if rule.activation)
    for number in (text["activation"], text["weight"], *own):
        formats.load(number)
    text["formats"] = {str(name): _runs(str(name), given) for name, given in text.get("formats", {}).items()}
    requantizes = tuple(str(operator) for operator in text.pop("requantizes", ()))
    roofline = _roofline(text.pop("roofline")) if "roofline" in text else None
    overflow = _overflow(text.pop("overflow")) if "overflow" in text else None
    return Target(
        name=name,
        operators=rules,
        placements=placements,
        requantizes=requantizes,
        roofline=roofline,
        overflow=overflow,
        **text,
    )


def _runs(name: str, given: object) -> Runs:
    known = schema.fields(f"the format {name}", {} if given is None else given, schema.of(Runs))
    for number in (name, *(known.get(key, name) for key in ("speed", "activation", "weight"))):
        formats.load(number)
    return Runs(**known)


def _overflow(given: object) -> Overflow:
    known = schema.fields("the overflow", given, schema.of(Overflow), ("where", "weight"))
    formats.load(known["weight"])
    where, unless = (tuple(map(str, known.get(key, ()))) for key in ("where", "unless"))
    return Overflow(where, unless, known["weight"])


def _roofline(given: object) -> Roofline:
    where = "the roofline"
    known = schema.fields(where, given, schema.of(Roofline), tuple(schema.of(Roofline)))
    rates = {str(name): _positive(f"{name!r} of {where}", rate) for name, rate in known["macs_per_second"].items()}
    for name in rates:
        formats.load(name)
    if "fp32" not in rates:
        raise ValueError(f"'macs_per_second' of {where} lacks 'fp32'")
    figures = (_positive(f"{name!r} of {where}", known[name]) for name in ("bytes_per_second", "layer_seconds"))
    return Roofline(rates, *figures)


def _positive(where: str, value: object) -> float:
    found = schema.number(where, value)
    if found <= 0:
        raise ValueError(f"{where} is {value!r}, not above 0")
    return found


def _rule(operator: str, given: object) -> Rule:
    known = schema.fields(f"the rule of {operator}", {} if given is None else given, schema.of(Rule))
    _require_choice("output", known.get("output", "quantized"))
    kernels = tuple(map(str, known.get("formats", ())))
    for name in kernels:
        formats.load(name)
    return Rule(**{**known, "fuses": tuple(known.get("fuses", ())), "formats": kernels})


def _placement(given: object) -> Mapping[str, Any]:
    known = schema.fields("a placement", given, _PLACEMENT, ("name",))
    for end in known.get("ends", ()):
        _require_choice("ends", end)
    return known


def _require_choice(name: str, value: str) -> None:
    if value not in _CHOICES[name]:
        raise ValueError(f"{name!r} is {value!r}, which is none of {', '.join(_CHOICES[name])}")
