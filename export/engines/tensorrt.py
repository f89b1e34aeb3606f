"""ONNX for TensorRT, whose Q/DQ pairs and types are all that says in what a layer runs, and the engine built of it."""

from functools import partial

from convkit.export.engines import onnx
from convkit.export.exporter import Exporter

PART = Exporter(partial(onnx.write, in_types=True, engine="tensorrt"), builds="tensorrt")
