"""The Comparison: float, peers and convkit on one network and engine, timed interleaved in one run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench import estimate, machine
from convkit.runtimes.bench.block import Block, BlockPlan
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.measure import Measurement, Settings, Workbench, measure
from convkit.runtimes.bench.worker import ProcessWorker, Worker
from convkit.runtimes.session import Options
from tests.bench import peer as peers
from tests.bench.cases import Case
from tests.bench.product import Quantized

FLOAT, CONVKIT, BF16 = "float", "convkit", "float in bf16"
ENGINES = {"onnxruntime": ("onnxruntime_static",), "openvino": ("nncf_post_training", "onnxruntime_static")}
"""Engines and the peers whose files they run; the first is the one convkit must beat."""
THREADS, SEED = 2, 0
_WIDTH = 0.004


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network on one engine. `over_peer`: p50 of convkit over each peer's, by its name; `absent`: who is not in
    it, and why.
    """

    case: Case
    engine: str
    product: Quantized
    measurement: Measurement
    over_peer: Mapping[str, Interval]
    absent: Mapping[str, str]

    @property
    def rival(self) -> str:
        """The peer that convkit must beat on this engine."""
        return peers.load(ENGINES[self.engine][0]).name

    def score(self, candidate: str, metric: str) -> float:
        return self.measurement[candidate].metrics[metric]


def compare(case: Case, engine: str, product: Quantized, budget: float, say: Callable[[str], None]) -> Comparison:
    """Time all candidates for `budget` seconds and score them on the case's evaluation data."""
    absent: dict[str, str] = {}
    candidates = [one for one in _candidates(case, engine, product, absent, say) if _opens(one, absent)]
    recorder = _Recorder()
    measurement = measure(
        candidates,
        FLOAT,
        case.evaluation,
        Settings(budget=budget, width=_WIDTH, seed=SEED, batch=1, metrics=case.metrics),
        Workbench(open=recorder.open),
    )
    rivals = [one.name for one in candidates if one.name not in {FLOAT, CONVKIT, BF16}]
    over = {name: recorder.ratio(CONVKIT, name) for name in rivals}
    return Comparison(case, engine, product, measurement, over, absent)


def _candidates(
    case: Case, engine: str, product: Quantized, absent: dict[str, str], say: Callable[[str], None]
) -> Iterator[Candidate]:
    def candidate(name: str, path: Path, precision: str = "f32") -> Candidate:
        return Candidate(name, engine, str(path), Options(threads=THREADS, precision=precision, shapes=case.shapes))

    yield candidate(FLOAT, case.model)
    for part in ENGINES[engine]:
        peer = peers.load(part)
        say(f"{case.name}: {peer.name}")
        try:
            yield candidate(peer.name, peers.quantized(peer, case.model, case.calibration))
        except peers.RefusedError as error:
            absent[peer.name] = str(error)
    yield candidate(CONVKIT, product.model)
    if engine == "openvino" and {"avx512_bf16", "amx_bf16"} & set(machine.fingerprint()["flags"]):
        yield candidate(BF16, case.model, precision="bf16")


def _opens(candidate: Candidate, absent: dict[str, str]) -> bool:
    """Whether the engine takes a peer's file; float and convkit must be taken."""
    if candidate.name in {FLOAT, CONVKIT}:
        return True
    try:
        ProcessWorker(candidate).close()
    except ConvkitError as error:
        absent[candidate.name] = str(error)
        return False
    return True


class _Recording(ProcessWorker):
    """Keeps the median of every block, so that any two candidates can be compared, not each with the baseline only."""

    def __init__(self, candidate: Candidate, medians: list[float]) -> None:
        super().__init__(candidate)
        self._medians = medians

    def time(self, plan: BlockPlan) -> Block:
        block = super().time(plan)
        self._medians.append(float(np.median(block.seconds)))
        return block


@dataclass(slots=True)
class _Recorder:
    medians: dict[str, list[float]] = field(default_factory=dict)

    def open(self, candidate: Candidate) -> Worker:
        return _Recording(candidate, self.medians.setdefault(candidate.name, []))

    def ratio(self, one: str, other: str) -> Interval:
        """Paired over rounds; the first block only told how long a call takes."""
        own, base = (np.array(self.medians[name][1:]) for name in (one, other))
        return estimate.paired_ratio(own, base, SEED)
