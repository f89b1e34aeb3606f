"""ONNX for TensorRT for RTX, and the engine that is built of it, for devices that need not be here."""

from convkit.export.exporter import Exporter

PART = Exporter("tensorrt_rtx", builds="tensorrt_rtx", in_types=True)
