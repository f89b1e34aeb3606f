"""What TensorRT makes of the files of several quantizers: how many convolutions and products really run in INT8 or FP8.

Each file is linted, built for one compute capability, and its layers read from what the builder logs; ONNX Runtime
tells how far its answers agree with the float network's.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from convkit.compress.errors import ConvkitError
from convkit.export import lint
from convkit.export.tensorrt import asserted, build, precision
from convkit.export.tensorrt.request import Profile, Settings
from convkit.runtimes.bench.estimate import point
from convkit.runtimes.session import Options
from convkit.runtimes.session.isolated import IsolatedSession
from tests.bench import peer as peers
from tests.bench import product
from tests.bench.cases import Case
from tests.bench.environment import RefusedError
from tests.bench.limits import Line

PACKAGE, SM, NETWORKS = "tensorrt_rtx", 89, ("lite0",)
PEERS = ("onnxruntime_symmetric", "onnxruntime_static", "modelopt_int8", "modelopt_fp8", "aimet_mixed_precision")
OWN: Mapping[str, str] = {"convkit int8": "int8", "convkit fp8": "fp8_e4m3"}
"""convkit's files, by the precision that is asked for."""
LOW = ("int8", "fp8_e4m3")
AGREED = 97.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One file: of its `layers` with weights, how many run in INT8 or FP8 (`low`); percent of the photos' `agreement`;
    or why there is no engine."""

    name: str
    layers: int = 0
    low: int = 0
    agreement: float = float("nan")
    refused: str = ""


def compare(case: Case, folder: Path, say: Callable[[str], None]) -> list[Engine]:
    """convkit and PEERS on the network of `case`; convkit's output goes into `folder`."""
    found = []
    exact = _answers(case.model, case)
    for name, file in _files(case, folder, say):
        if isinstance(file, str):
            found.append(Engine(name, refused=file))
            continue
        say(f"{case.name}: an engine of {name}")
        found.append(_engine(name, file, case, exact))
    return found


def _files(case: Case, folder: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Path | str]]:
    """Files by their makers' names, or why there is none."""
    for name, number in OWN.items():
        say(f"{case.name}: {name}")
        yield name, product.precision(case, "trt-rtx", number, folder / name.replace(" ", "-"))
    for part in PEERS:
        peer = peers.load(part)
        say(f"{case.name}: {peer.name}")
        try:
            yield peer.name, peers.quantized(peer, case.model, case.calibration, case.truth)
        except RefusedError as error:
            yield peer.name, f"made nothing: {error}"


def _engine(name: str, file: Path, case: Case, exact: np.ndarray) -> Engine:
    model = onnx.load(file)
    asserted.inlined(model)  # nodes without a name of their own would count as one
    agreement = 100 * float((_answers(file, case) == exact).mean())
    broken = lint.lint(model, PACKAGE, lint.Device(SM))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        try:
            built = build.build(PACKAGE, path, Settings(sm=SM, profile=Profile(case.shapes, case.shapes, case.shapes)))
        except ConvkitError as error:
            words = f"{broken[0].words} ({broken[0].rule})" if broken else error.message
            return Engine(name, agreement=agreement, refused=words)
    found = precision.compare(model, built.layers)
    return Engine(name, len(found), sum(one.ran in LOW for one in found), agreement)


def _answers(file: Path, case: Case) -> np.ndarray:
    """The class of each scored photo [photos]."""
    session = IsolatedSession("onnxruntime", str(file), Options(threads=2, optimization="basic"))
    (feed,), (output,), (photos,) = session.inputs, session.outputs, case.evaluation.arrays.values()
    try:
        return np.array([session.run({feed.name: photo[None]})[output.name].argmax() for photo in photos])
    finally:
        session.close()


def limits_of(network: str, found: Sequence[Engine]) -> Iterator[Line]:
    """convkit's count is never lower than anybody's, and every layer's; its answers are the float network's."""
    where = f"trt-rtx, {network}, SM {SM}"
    most = max(one.low for one in found if one.name not in OWN)
    for own in (one for one in found if one.name in OWN):
        yield Line(where, f"layers of {own.name} in few bits, the others' most {most}", point(own.low), ">=", most, "")
        yield Line(where, f"layers of {own.name} in few bits, of {own.layers}", point(own.low), ">=", own.layers, "")
        yield Line(where, f"answers of {own.name} as in float", point(own.agreement), ">=", AGREED, "%")


def document(network: str, found: Sequence[Engine]) -> str:
    """As docs/tensorrt.md has it."""
    lines = [
        f"## {network} by several quantizers, SM {SM}",
        "",
        "Layers with weights that really run in INT8 or FP8 in the engine that is built of each one's file, and the",
        "percentage of labelled photos that ONNX Runtime answers with that file as with the float network.",
        "",
        "| file of | in INT8 or FP8 | agreement % |",
        "|---|---|---|",
    ]
    for one in found:
        count = one.refused or f"{one.low} of {one.layers}"
        lines.append(f"| {one.name} | {count} | {'' if np.isnan(one.agreement) else f'{one.agreement:.1f}'} |")
    return "\n".join([*lines, ""])
