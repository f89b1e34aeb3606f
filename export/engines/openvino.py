"""ONNX for OpenVINO, which reads Q/DQ pairs as its FakeQuantize and knows no local functions: `to_onnx` writes none."""

from convkit.export.exporter import Exporter

PART = Exporter("openvino", opens="openvino")
