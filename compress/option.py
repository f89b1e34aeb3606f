"""An Option: the formats that a layer may run in, and the form that it may have."""

from __future__ import annotations

from dataclasses import dataclass, replace

_FLOAT = "fp32"


@dataclass(frozen=True, slots=True, order=True)
class Option:
    """Formats of a layer's weight and of its activations, by name, and its form with ranks, "" where it has none but
    its own. Text is "int4/uint8", or one name for both, and behind it "@tucker2:8,12".
    """

    weight: str
    activation: str
    form: str = ""

    def __str__(self) -> str:
        formats = self.weight if self.weight == self.activation else f"{self.weight}/{self.activation}"
        return f"{formats}@{self.form}" if self.form else formats

    @classmethod
    def parse(cls, text: str) -> Option:
        """The Option that `text` says."""
        formats, _, form = text.partition("@")
        weight, _, activation = formats.partition("/")
        return cls(weight, activation or weight, form)

    @property
    def plain(self) -> Option:
        """Its formats alone."""
        return replace(self, form="")

    @property
    def kernels(self) -> str:
        """What of it decides which kernels run: "uint8@tucker2:8,12"."""
        return f"{self.activation}@{self.form}" if self.form else self.activation


FLOAT = Option(_FLOAT, _FLOAT)
