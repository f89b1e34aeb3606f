"""Signed 8-bit integers, symmetric around zero: weights on every engine, activations where zero points cost."""

from convkit.compress.format import signed

PART = signed(8, "int8")
