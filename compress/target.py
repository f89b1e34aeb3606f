"""The Target: what a kind of hardware, through its engine, really runs in low precision. Data, read from
`recipes/targets/NAME.yaml`; no code asks for an engine by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convkit.compress import parts
from convkit.compress.errors import ConvkitError


@dataclass(frozen=True, slots=True)
class Rule:
    """How the engine runs one operator in INT8.

    `output` is "quantized" when its kernel only exists with a quantized result, "any" when it also gives float.
    `fuses` are the activations the engine runs inside it. `same_range`: inputs and output share one scale (the
    operator only moves or picks codes); `on_codes`: it must be given the codes themselves, for the engine would not see
    that it may move them. `bias`: the type its bias is stored in, None when it stays float.
    """

    output: str = "quantized"
    fuses: tuple[str, ...] = ()
    same_range: bool = False
    on_codes: bool = False
    bias: str | None = None
    weight: bool = False
    """Its second input is a weight (Conv, Gemm, MatMul)."""


@dataclass(frozen=True, slots=True)
class Target:
    """An engine on a kind of device, and where Q/DQ may stand for it."""

    name: str
    engine: str
    about: str
    opset: int
    activation: str
    weight: str
    symmetric: bool
    """Activations are symmetric around zero (zero point 0)."""
    reduce_range: bool = False
    operators: Mapping[str, Rule] = field(default_factory=dict)
    placements: tuple[Mapping[str, Any], ...] = ()
    """Alternatives to measure: each has a `name` and says which operators (`float`) and which ends of the network
    (`ends`: first, last) stay in float."""


def load(name: str) -> Target:
    """The target called `name`, or the one in the YAML file `name`."""
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else parts.path("recipes/targets", name)
    try:
        text = yaml.safe_load(path.read_text())
        rules = {operator: _rule(rule) for operator, rule in text.pop("operators").items()}
        return Target(operators=rules, name=path.stem, placements=tuple(text.pop("placements", ())), **text)
    except (OSError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ConvkitError(f"{path} is no target: {error}", hint="compare it with `convkit list targets`") from error


def _rule(text: Mapping[str, Any] | None) -> Rule:
    fields = dict(text or {})
    return Rule(fuses=tuple(fields.pop("fuses", ())), **fields)
