"""ONNX for ONNX Runtime, which fuses Q/DQ pairs with the operator between them when it opens the file."""

from functools import partial

from convkit.export.engines import onnx
from convkit.export.exporter import Exporter

PART = Exporter(partial(onnx.write, engine="onnxruntime"), opens="onnxruntime")
