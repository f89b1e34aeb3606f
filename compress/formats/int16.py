"""Signed 16-bit integers, symmetric around zero."""

from convkit.compress.format import signed

PART = signed(16, "int16")
