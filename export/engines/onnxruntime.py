"""ONNX for ONNX Runtime, which fuses Q/DQ pairs with the operator between them when it opens the file."""

from convkit.export.exporter import Exporter
from convkit.export.group_norm import by_instance
from convkit.export.in_blocks import in_blocks

PART = Exporter("onnxruntime", opens="onnxruntime", in_functions=True, rewrites=(by_instance, in_blocks))
