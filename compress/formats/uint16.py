"""Unsigned 16-bit integers with a zero point."""

from convkit.compress.format import unsigned

PART = unsigned(16, "uint16")
