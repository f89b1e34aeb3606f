"""Unsigned 2-bit integers with a zero point: activations clipped to fewer codes, for search and simulation."""

from convkit.compress.format import unsigned

PART = unsigned(2, "uint8")
