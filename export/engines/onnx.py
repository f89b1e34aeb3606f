"""A plain ONNX file, in standard operators only."""

from pathlib import Path

from convkit.compress.model import Model
from convkit.export import artifact
from convkit.export.artifact import Artifact
from convkit.export.exporter import Exporter


def write(model: Model, folder: Path, opset: int, engine: str = "", *, in_types: bool = False) -> Artifact:
    """model.onnx in `folder`; `in_types`: layers in fp16 and bf16 are in these types, as strong typing wants them."""
    from convkit.export.onnx import to_onnx
    from convkit.export.typed import typed

    path, made = folder / artifact.MODEL, to_onnx(model, opset)
    return Artifact(path, artifact.write_onnx(typed(made) if in_types else made, path), engine)


PART = Exporter(write)
