"""ONNX for OpenVINO, which reads Q/DQ pairs as its FakeQuantize and knows no local functions: `to_onnx` writes none."""

from functools import partial

from convkit.export.engines import onnx
from convkit.export.exporter import Exporter

PART = Exporter(partial(onnx.write, engine="openvino"), opens="openvino")
