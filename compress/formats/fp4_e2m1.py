"""4-bit float 0, 0.5, 1, 1.5, 2, 3, 4, 6, as ONNX's FLOAT4E2M1; every value is also one of the 8-bit float E4M3."""

from convkit.compress.floating import Floating

PART = Floating("4-bit float, up to 6", 4, "float8_e4m3fn", exponent=2, mantissa=1, largest=6.0)
