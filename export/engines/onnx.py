"""A plain ONNX file, in standard operators only."""

from convkit.export.exporter import Exporter

PART = Exporter()
