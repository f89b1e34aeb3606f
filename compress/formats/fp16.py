"""float16, IEEE 754's half: 11 bits of precision, up to 65504."""

from convkit.compress.floating import Plain

PART = Plain("16-bit float, up to 65504", 16, "float16")
