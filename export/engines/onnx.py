"""A plain ONNX file, in standard operators only."""

from pathlib import Path

from convkit.compress.model import Model
from convkit.export import artifact
from convkit.export.artifact import Artifact
from convkit.export.exporter import Exporter


def write(model: Model, folder: Path, opset: int, engine: str = "") -> Artifact:
    """model.onnx in `folder`."""
    from convkit.export.onnx import to_onnx

    path = folder / artifact.MODEL
    return Artifact(path, artifact.write_onnx(to_onnx(model, opset), path), engine)


PART = Exporter(write)
