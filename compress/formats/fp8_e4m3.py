"""8-bit float with 4 exponent and 3 mantissa bits, as ONNX's FLOAT8E4M3FN: up to 448, one code kept for NaN."""

from convkit.compress.floating import Floating

PART = Floating("8-bit float, up to 448", 8, "float8_e4m3fn", exponent=4, mantissa=3, largest=448.0)
