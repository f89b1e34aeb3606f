"""Signed 6-bit integers, symmetric around zero: weights, as codes of a narrower range in 8-bit kernels."""

from convkit.compress.format import signed

PART = signed(6, "int8")
