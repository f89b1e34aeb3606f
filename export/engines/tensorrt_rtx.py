"""ONNX for TensorRT for RTX, and the engine that is built of it, for devices that need not be here."""

from functools import partial

from convkit.export.engines import onnx
from convkit.export.exporter import Exporter

PART = Exporter(partial(onnx.write, in_types=True, engine="tensorrt_rtx"), builds="tensorrt_rtx")
