"""An Option: the formats that a layer may run in."""

from __future__ import annotations

from dataclasses import dataclass

_FLOAT = "fp32"


@dataclass(frozen=True, slots=True, order=True)
class Option:
    """Formats of a layer's weight and of its activations, by name. Text is "int4/uint8", or one name for both."""

    weight: str
    activation: str

    def __str__(self) -> str:
        return self.weight if self.weight == self.activation else f"{self.weight}/{self.activation}"

    @classmethod
    def parse(cls, text: str) -> Option:
        """The Option that `text` says."""
        weight, _, activation = text.partition("/")
        return cls(weight, activation or weight)


FLOAT = Option(_FLOAT, _FLOAT)
