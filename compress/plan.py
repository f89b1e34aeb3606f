"""The Plan: everything that is decided about a network, small enough to read, diff and edit by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Formats of one layer: of its weight (None: it has none, or keeps it in float) and of its activations.

    `weight_range` names how the weight's per-channel range is found: "max", or "mse" (least squared error).
    """

    activation: str
    weight: str | None = None
    weight_range: str = "max"


@dataclass(frozen=True, slots=True)
class Range:
    """Real interval that a tensor's codes cover, and the calibrator that chose it."""

    low: float
    high: float
    calibrator: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` does to a model: the methods in order, then a format per layer and a range per tensor.

    A layer that is not listed stays in float.
    """

    model: str
    target: str
    methods: tuple[str, ...] = ()
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of the plan's text."""
        return record.digest_bytes(dump(self).encode())


def dump(plan: Plan) -> str:
    """`plan` as YAML: a line a layer, a line a range."""
    head = [
        "# convkit plan: remove a layer's line to keep it in float; `convkit export --plan` applies it.",
        f"schema_version: {SCHEMA_VERSION}",
        f"model: {plan.model}",
        f"target: {plan.target}",
        f"methods: [{', '.join(plan.methods)}]",
    ]
    layers = [f"  {_key(name)}: {{{_fields(layer)}}}" for name, layer in plan.layers.items()]
    ranges = [
        f"  {_key(name)}: {{low: {r.low!r}, high: {r.high!r}, calibrator: {r.calibrator}}}"
        for name, r in plan.ranges.items()
    ]
    return (
        "\n".join(
            [*head, "layers:" if layers else "layers: {}", *layers, "ranges:" if ranges else "ranges: {}", *ranges]
        )
        + "\n"
    )


def _key(name: str) -> str:
    """A tensor's name as a YAML key: quoted as JSON, which is YAML, so that no name can be misread."""
    import json

    return json.dumps(name, ensure_ascii=False)


def _fields(layer: LayerPlan) -> str:
    shown = [f"activation: {layer.activation}"]
    if layer.weight is not None:
        shown = [f"weight: {layer.weight}", f"weight_range: {layer.weight_range}", *shown]
    return ", ".join(shown)


def read(path: str | Path) -> Plan:
    """The Plan in a YAML file; anything that is not one is the user's error."""
    import yaml

    try:
        text = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        version = text.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise ConvkitError(f"{path} has schema_version {version}", hint=f"this convkit reads {SCHEMA_VERSION}")
        return _parse(text)
    except OSError as error:
        raise ConvkitError(f"cannot read plan {path}: {error.strerror}") from error
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConvkitError(f"{path} is no plan: {detail}", hint="`convkit quantize` writes one") from error


def _parse(text: dict[str, Any]) -> Plan:
    layers = {str(name): LayerPlan(**fields) for name, fields in (text.pop("layers") or {}).items()}
    ranges = {
        str(name): Range(float(fields["low"]), float(fields["high"]), str(fields["calibrator"]))
        for name, fields in (text.pop("ranges") or {}).items()
    }
    return Plan(layers=layers, ranges=ranges, methods=tuple(text.pop("methods") or ()), **text)
