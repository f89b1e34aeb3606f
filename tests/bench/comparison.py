"""The Comparison: float, peers and convkit on one network and engine, timed interleaved in one run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
    candidates = [one for one in _candidates(case, engine, product, absent, say) if opens(one, absent)]
    measurement, recorder = timed(case, candidates, budget)
    rivals = [one.name for one in candidates if one.name not in {FLOAT, CONVKIT, BF16}]
    over = {name: recorder.ratio(CONVKIT, name) for name in rivals}
    return Comparison(case, engine, product, measurement, over, absent)


def timed(case: Case, candidates: list[Candidate], budget: float) -> tuple[Measurement, "Recorder"]:
    """All candidates interleaved, with what compares any two of them; FLOAT is the baseline."""
    recorder = Recorder()
    settings = Settings(budget=budget, width=_WIDTH, seed=SEED, batch=1, metrics=case.metrics)
    return measure(candidates, FLOAT, case.evaluation, settings, Workbench(open=recorder.open)), recorder


def has_bf16() -> bool:
    """Whether this CPU computes in bf16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(machine.fingerprint()["flags"]))


def candidate(case: Case, engine: str, name: str, path: Path, **knobs: Any) -> Candidate:
    """`path` on the benches' threads; `knobs`: other fields of Options than their defaults."""
    return Candidate(name, engine, str(path), Options(**({"threads": THREADS, "shapes": case.shapes} | knobs)))


def peers_of(
    case: Case, engine: str, parts: Sequence[str], absent: dict[str, str], say: Callable[[str], None]
) -> Iterator[Candidate]:
    """What each peer made of the network; who made nothing is told in `absent`."""
    for part in parts:
        peer = peers.load(part)
        say(f"{case.name}: {peer.name}")
        try:
            yield candidate(case, engine, peer.name, peers.quantized(peer, case.model, case.calibration, case.truth))
        except peers.RefusedError as error:
            absent[peer.name] = str(error)


def _candidates(
    case: Case, engine: str, product: Quantized, absent: dict[str, str], say: Callable[[str], None]
) -> Iterator[Candidate]:
    yield candidate(case, engine, FLOAT, case.model)
    yield from peers_of(case, engine, ENGINES[engine], absent, say)
    yield candidate(case, engine, CONVKIT, product.model)
    if engine == "openvino" and has_bf16():
        yield candidate(case, engine, BF16, case.model, precision="bf16")


def opens(candidate: Candidate, absent: dict[str, str]) -> bool:
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
class Recorder:
    """Opens candidates and keeps their blocks."""

    medians: dict[str, list[float]] = field(default_factory=dict)

    def open(self, candidate: Candidate) -> Worker:
        return _Recording(candidate, self.medians.setdefault(candidate.name, []))

    def ratio(self, one: str, other: str) -> Interval:
        """Paired over rounds; the first block only told how long a call takes."""
        own, base = (np.array(self.medians[name][1:]) for name in (one, other))
        return estimate.paired_ratio(own, base, SEED)


def as_dict(found: Comparison) -> dict[str, Any]:
    return {
        "network": found.case.name,
        "engine": found.engine,
        "verdict": found.product.verdict,
        "quantize": asdict(found.product.command),
        "calibration_samples": len(next(iter(found.case.calibration.values()))),
        "measurement": asdict(found.measurement),
        "p50_over_peer": {name: asdict(ratio) for name, ratio in found.over_peer.items()},
        "absent": dict(found.absent),
    }
