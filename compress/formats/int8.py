"""Signed 8-bit integers, symmetric around zero: weights on every engine, activations where zero points cost."""

from convkit.compress.format import Format

PART = Format(about="signed 8-bit, symmetric", bits=8, low=-128, high=127, storage="int8", symmetric=True)
