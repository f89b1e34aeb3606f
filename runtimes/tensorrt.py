"""TensorRT on an NVIDIA GPU: engines that were exported for it, and ONNX files, which are built first."""

from convkit.runtimes import _tensorrt

PART = _tensorrt.runtime("tensorrt")
