"""The matrix of TensorRT: networks by formats by compute capabilities, each engine built here and held to its plan.

A cell is what its layers with weights run in, or why it was refused beforehand. Weights are drawn by a seed: what an
engine has kernels for does not depend on them.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Samples
from convkit.compress.model import Model, ModelRef, load, parse_shape
from convkit.compress.option import Option
from convkit.compress.plan import Plan
from convkit.compress.search import space as spaces
from convkit.export import exporter, lint
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Profile, Settings
from convkit.runtimes.session import check_file
from tests.bench import networks

TARGET, PACKAGE = "trt-rtx", "tensorrt_rtx"
NETWORKS: Mapping[str, str] = {
    "resnet": "x:Nx3x224x224",
    "mobilenet_v2": "x:Nx3x224x224",
    "lite0": "",
    "efficientnet": "x:Nx3x224x224",
    "convnext": "x:Nx3x224x224",
    "regnet": "x:Nx3x224x224",
    "unet": "x:Nx3x128x128",
    "espcn": "x:Nx1x64x64",
    "watch": "series:Nx6x100",
    "volume": "volume:Nx1x16x32x32",
}
"""What each takes; those of `tests/nets` at their own size, Lite0 as it was trained."""
FORMATS = ("fp32", "fp16", "bf16", "int8", "fp8_e4m3")
SMS = (75, 80, 86, 89, 120)
METHODS = ("simplify", "fold_batch_norm")


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine: how many layers run `as_planned`, those that do not, by name, or why there is none.

    `foreseen`: whether lint was what refused it.
    """

    network: str
    number: str
    sm: int
    as_planned: int = 0
    departing: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    foreseen: bool = True
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every layer runs as planned, or the cell was refused beforehand."""
        return not self.departing and (not self.refused or self.foreseen)

    @property
    def words(self) -> str:
        if self.refused:
            return "refused" if self.foreseen else "FAILS"
        return f"{self.as_planned}" if self.holds else f"{self.as_planned}, {len(self.departing)} DEPART"


def matrix(names: tuple[str, ...], say: Callable[[str], None]) -> list[Cell]:
    """Every cell of the networks called `names`."""
    found = []
    for name in names:
        model = load(_ref(name))
        sample = {
            spec.name: torch.randn(spec.sample, generator=torch.Generator().manual_seed(0)) for spec in model.inputs
        }
        prepared = prepare(model, METHODS, sample)
        for number in FORMATS:
            say(f"{name} in {number}")
            with tempfile.TemporaryDirectory() as folder:
                path = _written(model, prepared, number, sample, Path(folder))
                found += [_cell(name, number, sm, path, sample) for sm in SMS]
    return found


def _ref(name: str) -> ModelRef:
    if not NETWORKS[name]:
        path = networks.onnx_file(name)
        check_file(str(path))
        return ModelRef(str(path))
    return ModelRef(f"tests.nets.{name}:net", None, {}, dict([parse_shape(NETWORKS[name])]))


def _written(model: Model, prepared: Model, number: str, sample: Samples, folder: Path) -> Path:
    target, made = targets.load(TARGET), prepared
    if number != "fp32":
        layers = spaces.uniform(prepared, target, placement.place(prepared.graph, target), Option(number, number))
        layers, ranges = calibration.calibrate(prepared, target, layers, Calibration([sample], [sample]))
        made = apply_prepared(prepared, Plan(model.digest, target.name, METHODS, layers, ranges), target, [sample])
    return exporter.find(TARGET)[0].write(made, folder, target.opset).path


def _cell(name: str, number: str, sm: int, path: Path, sample: Samples) -> Cell:
    import onnx

    foreseen = lint.lint(onnx.load(path), PACKAGE, lint.Device(sm))
    if foreseen:
        return Cell(name, number, sm, refused=f"{foreseen[0].operator} {foreseen[0].node!r}: {foreseen[0].words}")
    shapes = {key: tuple(tensor.shape) for key, tensor in sample.items()}
    try:
        found = build_and_assert(PACKAGE, path, Settings(sm=sm, profile=Profile(shapes, shapes, shapes)))
    except ConvkitError as error:
        return Cell(name, number, sm, refused=error.message, foreseen=False)
    departing = {one.node: one.words for one in found.findings if not one.holds}
    as_planned = sum(one.holds for one in found.findings)
    return Cell(name, number, sm, as_planned, departing, seconds=found.built.seconds)
