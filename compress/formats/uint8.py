"""Unsigned 8-bit integers with a zero point: what x86 engines want for activations."""

from convkit.compress.format import unsigned

PART = unsigned(8, "uint8")
