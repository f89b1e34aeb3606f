"""bfloat16: the exponent of float32, 8 bits of precision."""

from convkit.compress.floating import Plain

PART = Plain("16-bit float with the range of float32", 16, "bfloat16")
