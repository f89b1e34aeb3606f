"""ONNX for TensorRT, whose Q/DQ pairs and types are all that says in what a layer runs, and the engine built of it."""

from convkit.export.exporter import Exporter

PART = Exporter("tensorrt", builds="tensorrt", in_types=True)
