"""The matrix of TensorRT: networks by formats by compute capabilities, each engine built here and held to its plan.

A cell is what its layers with weights run in, or why it was refused beforehand. ONNX Runtime runs each of the files
beside convkit's simulation of it. Weights are drawn by a seed: what an engine has kernels for does not depend on them.
Mixed plans are what the search chooses of several formats, by what each layer is foretold to lose, for a size near that
of INT8 everywhere.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from convkit.compress import calibration, placement, promotion
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Samples
from convkit.compress.metric import evaluate
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
from convkit.runtimes.session import Options, check_file, open_session
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
WITHOUT_KERNELS = ("bf16",)
"""Of convolutions, in ONNX Runtime on a CPU."""
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


@dataclass(frozen=True, slots=True)
class Written:
    """A network as a plan has it, its file, and the formats that the plan asks of its layers."""

    made: Model
    path: Path
    asked: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Numbers:
    """How near ONNX Runtime's outputs of a file are to its simulation's: signal over error in dB, of the worst one."""

    network: str
    number: str
    sqnr: float


def matrix(names: tuple[str, ...], say: Callable[[str], None]) -> tuple[list[Cell], list[Numbers]]:
    """Every cell of the networks called `names`, and the numbers of every file that ONNX Runtime has kernels for."""
    cells, numbers = [], []
    for name in names:
        prepared, sample = network(name)
        for number in FORMATS:
            say(f"{name} in {number}")
            with tempfile.TemporaryDirectory() as folder:
                file = written(prepared, number, sample, Path(folder))
                cells += [cell(name, number, sm, file, sample) for sm in SMS]
                if number not in WITHOUT_KERNELS:
                    numbers.append(Numbers(name, number, agreement(file, sample)))
    return cells, numbers


def network(name: str) -> tuple[Model, Samples]:
    """The network, prepared, and a sample that it takes."""
    model = load(_ref(name))
    sample = {spec.name: torch.randn(spec.sample, generator=torch.Generator().manual_seed(0)) for spec in model.inputs}
    return prepare(model, METHODS, [sample]), sample


def agreement(file: Written, sample: Samples) -> float:
    """`sqnr` of the Numbers of a file."""
    session = open_session("onnxruntime", str(file.path), Options(optimization="basic"))
    try:
        found = session.run({name: tensor.numpy() for name, tensor in sample.items()})
    finally:
        session.close()
    return min(
        evaluate("sqnr", {name: found[name]}, {name: wanted.numpy()}) for name, wanted in file.made(sample).items()
    )


def _ref(name: str) -> ModelRef:
    if not NETWORKS[name]:
        path = networks.onnx_file(name)
        check_file(str(path))
        return ModelRef(str(path))
    return ModelRef(f"tests.nets.{name}:net", None, {}, dict([parse_shape(NETWORKS[name])]))


def written(prepared: Model, number: str, sample: Samples, folder: Path) -> Written:
    """The network in a format, or in a mixture of several; its file is in `folder`."""
    target, made, asked = targets.load(TARGET), prepared, dict[str, str]()
    if number != "fp32":
        formats = MIXED.get(number)
        plan = mixed(prepared, target, formats, sample) if formats else _uniform(prepared, target, number, sample)
        made, asked = apply_prepared(prepared, plan, target, [sample]), promotion.kernels(plan, target)
    return Written(made, exporter.find(TARGET)[0].write(made, folder, target.opset).path, asked)


def _uniform(prepared: Model, target: Target, number: str, sample: Samples) -> Plan:
    return uniform(prepared, number, target, METHODS, [sample])


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


def cell(name: str, number: str, sm: int, file: Written, sample: Samples) -> Cell:
    """The Cell of one file for one compute capability."""
    shapes = {key: tuple(tensor.shape) for key, tensor in sample.items()}
    try:
        settings = Settings(sm=sm, profile=Profile(shapes, shapes, shapes))
        started = time.perf_counter()
        found = build_and_assert(PACKAGE, file.path, settings, file.asked)
        seconds = time.perf_counter() - started
    except ForeseenError as error:
        return Cell(name, number, sm, refused=error.message, rule=error.findings[0].rule)
    except ConvkitError as error:
        return Cell(name, number, sm, refused=error.message)
    departing = {one.node: one.words for one in found.findings if not one.holds}
    as_planned = Counter(one.planned for one in found.findings if one.holds)
    return Cell(name, number, sm, dict(sorted(as_planned.items())), departing, seconds=seconds)


def document(found: Sequence[Cell], numbers: Sequence[Numbers]) -> str:
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
        "The last column is how near ONNX Runtime's outputs of the file are to those of convkit's simulation, in dB of",
        "signal over error; it has no convolutions in bfloat16. A code that the last bit of a sum flips moves many",
        "behind it: in deep networks of codes the simulation agrees with itself no better, where its sums have another",
        "order.",
        "",
        f"| network | format | {' | '.join(f'SM {sm}' for sm in SMS)} | ONNX Runtime |",
        f"|---|---|{'---|' * len(SMS)}---|",
    ]
    known = {(one.network, one.number): f"{one.sqnr:.0f}" for one in numbers}
    return "\n".join([*lines, *(row(found, *key, known.get(key, "–")) for key in _rows(found)), ""])


def row(found: Sequence[Cell], name: str, number: str, sqnr: str) -> str:
    """A line of the page."""
    cells = {one.sm: one.words for one in found if (one.network, one.number) == (name, number)}
    return f"| {name} | {number} | {' | '.join(cells[sm] for sm in cells)} | {sqnr} |"


def _rows(found: Sequence[Cell]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((one.network, one.number) for one in found))
