"""Unsigned 8-bit integers with a zero point: what x86 engines want for activations."""

from convkit.compress.format import Format

PART = Format(about="unsigned 8-bit with zero point", bits=8, low=0, high=255, storage="uint8", symmetric=False)
