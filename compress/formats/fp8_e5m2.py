"""8-bit float with 5 exponent and 2 mantissa bits, as ONNX's FLOAT8E5M2: up to 57344, for heavy tails."""

from convkit.compress.floating import Floating

PART = Floating("8-bit float, up to 57344", 8, "float8_e5m2", exponent=5, mantissa=2, largest=57344.0)
