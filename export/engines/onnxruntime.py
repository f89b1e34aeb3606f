"""ONNX for ONNX Runtime, which fuses Q/DQ pairs with the operator between them when it opens the file."""

from convkit.export.exporter import Exporter

PART = Exporter("onnxruntime", opens="onnxruntime", in_functions=True, by_instance=True)
