"""The matrix of TensorRT: networks by formats by compute capabilities, each engine built here and held to its plan.

A cell is what its layers with weights run in, or why it was refused beforehand. Weights are drawn by a seed: what an
engine has kernels for does not depend on them. Mixed plans are what the search chooses of several formats, by what each
layer is foretold to lose, for a size near that of INT8 everywhere.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from convkit.compress.plan import Plan
from convkit.compress.search import budget, sensitivity
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost
from convkit.compress.target import Target
from convkit.export import exporter
from convkit.export.tensorrt.asserted import ForeseenError, build_and_assert
from convkit.export.tensorrt.request import Profile, Settings
from convkit.runtimes.latency import roofline
from convkit.runtimes.latency.table import edges
from convkit.runtimes.session import check_file
from tests.bench import networks
from tests.export.tensorrt.planned import uniform

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
MIXED: Mapping[str, tuple[str, ...]] = {
    "int8, fp16 mixed": ("int8", "fp16"),
    "fp8, fp16 mixed": ("fp8_e4m3", "fp16"),
}
FORMATS = ("fp32", "fp16", "bf16", "int8", "fp8_e4m3", *MIXED)
SMS = (75, 80, 86, 89, 120)
METHODS = ("simplify", "fold_batch_norm")
_ABOVE = 0.15
"""Of the way from the smallest network to that in float32, by bytes."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine: how many layers run `as_planned`, by format, those that do not, by name, or why there is none.

    `rule`: that of lint which refused it; "" where it was not, and where it should have been.
    """

    network: str
    number: str
    sm: int
    as_planned: Mapping[str, int] = field(default_factory=dict)
    departing: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    rule: str = ""
    seconds: float = 0.0

    @property
    def foreseen(self) -> bool:
        """Whether lint was what refused it, if anything did."""
        return not self.refused or bool(self.rule)

    @property
    def holds(self) -> bool:
        """Whether every layer runs as planned, or the cell was refused beforehand."""
        return not self.departing and self.foreseen

    @property
    def words(self) -> str:
        if self.refused:
            return f"refused: {self.rule}" if self.foreseen else "FAILS"
        ran = ", ".join(f"{count} {number}" for number, count in self.as_planned.items())
        return ran if self.holds else f"{ran}, {len(self.departing)} DEPART"


def matrix(names: tuple[str, ...], say: Callable[[str], None]) -> list[Cell]:
    """Every cell of the networks called `names`."""
    found = []
    for name in names:
        model = load(_ref(name))
        sample = {
            spec.name: torch.randn(spec.sample, generator=torch.Generator().manual_seed(0)) for spec in model.inputs
        }
        prepared = prepare(model, METHODS, [sample])
        for number in FORMATS:
            say(f"{name} in {number}")
            with tempfile.TemporaryDirectory() as folder:
                path = _written(prepared, number, sample, Path(folder))
                found += [_cell(name, number, sm, path, sample) for sm in SMS]
    return found


def _ref(name: str) -> ModelRef:
    if not NETWORKS[name]:
        path = networks.onnx_file(name)
        check_file(str(path))
        return ModelRef(str(path))
    return ModelRef(f"tests.nets.{name}:net", None, {}, dict([parse_shape(NETWORKS[name])]))


def _written(prepared: Model, number: str, sample: Samples, folder: Path) -> Path:
    target, made = targets.load(TARGET), prepared
    if number in MIXED:
        made = apply_prepared(prepared, mixed(prepared, target, MIXED[number], sample), target, [sample])
    elif number != "fp32":
        made = apply_prepared(prepared, uniform(prepared, number, target, METHODS, [sample]), target, [sample])
    return exporter.find(TARGET)[0].write(made, folder, target.opset).path


def mixed(prepared: Model, target: Target, formats: tuple[str, ...], sample: Samples) -> Plan:
    """What the search chooses at a size near that of the smallest network."""
    seen = Calibration([sample], [sample])
    everything = uniform(prepared, target.weight, target, METHODS, [sample])
    ranged = spaces.with_shared_ranges(prepared, target, everything)
    options = spaces.options(prepared, target, formats)
    losses = sensitivity.sensitivity(prepared, target, ranged, options, [sample], probes=sensitivity.Probes(1))
    table = roofline.estimate(prepared, target, METHODS)
    times = spaces.Times(table.layers, edges(table))
    # Those that stay in float where all are in INT8 may still be in 16 bits.
    layers = {**placement.place(prepared.graph, target), **everything.layers}
    problem = spaces.problem(prepared, target, layers, options, losses, times, Cost(seconds=table.rest))
    smallest, best = budget.nearest(problem, "bytes"), budget.solve(problem, {})
    assert smallest is not None
    assert best is not None
    between = smallest.cost.bytes + _ABOVE * (best.cost.bytes - smallest.cost.bytes)
    choice = budget.solve(problem, {"bytes": between})
    assert choice is not None
    return calibration.complete(prepared, target, spaces.realised(prepared, target, ranged, choice.formats), seen)


def _cell(name: str, number: str, sm: int, path: Path, sample: Samples) -> Cell:
    shapes = {key: tuple(tensor.shape) for key, tensor in sample.items()}
    try:
        found = build_and_assert(PACKAGE, path, Settings(sm=sm, profile=Profile(shapes, shapes, shapes)))
    except ForeseenError as error:
        return Cell(name, number, sm, refused=error.message, rule=error.findings[0].rule)
    except ConvkitError as error:
        return Cell(name, number, sm, refused=error.message)
    departing = {one.node: one.words for one in found.findings if not one.holds}
    as_planned = Counter(one.planned for one in found.findings if one.holds)
    return Cell(name, number, sm, dict(sorted(as_planned.items())), departing, seconds=found.built.seconds)


def document(found: Sequence[Cell]) -> str:
    """The matrix as docs/tensorrt.md has it."""
    from convkit.export.tensorrt import package

    lines = [
        "# What TensorRT runs in which type",
        "",
        f"Every cell is an engine that TensorRT for RTX {package.version(PACKAGE)} built without a GPU, and how many",
        "of its layers with weights run in what: all as the file plans, or the cell says otherwise. What is refused is",
        "refused before anything is built, by the rule of `convkit lint` that is named.",
        "`python -m tests.bench matrix -o out/bench` makes this page (`out/bench/tensorrt.md`).",
        "",
        f"| network | format | {' | '.join(f'SM {sm}' for sm in SMS)} |",
        f"|---|---|{'---|' * len(SMS)}",
    ]
    cells = {(cell.network, cell.number, cell.sm): cell.words for cell in found}
    rows = dict.fromkeys((cell.network, cell.number) for cell in found)
    lines += [f"| {name} | {number} | {' | '.join(cells[name, number, sm] for sm in SMS)} |" for name, number in rows]
    return "\n".join([*lines, ""])
