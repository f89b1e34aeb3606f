"""Mixed precision beside its peers: float, every peer and convkit under each peer's latency, interleaved in one run."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.measure import Measurement
from tests.bench import cifar, comparison, distillation, product, zero_shot
from tests.bench import peer as peers
from tests.bench.cases import Case
from tests.bench.comparison import BF16, FLOAT
from tests.bench.distillation import Learnt
from tests.bench.product import Searched
from tests.bench.validation import MAX_DROP

NETWORKS = ("lite0", "lite1", "upconv7")
FORMATS = {"onnxruntime": "int8", "openvino": "int8,bf16"}
"""What each engine has kernels for beside float; bf16 only where the CPU computes in it."""
RUN_BY = {
    "onnxruntime": ("onnxruntime_static", "modelopt_int8", "aimet_mixed_precision"),
    "openvino": (
        "nncf_post_training",
        "nncf_accuracy_control",
        "onnxruntime_static",
        "modelopt_int8",
        "aimet_mixed_precision",
    ),
}
"""Engines and the peers whose files they run."""
WISHES = {("upconv7", "openvino"): (0.20,)}
"""Parts of float's time that convkit is asked for beside its peers'; narrower layers, too, where formats alone are not
fast enough, all widths a multiple of STEP. Of the engine with kernels for the layers' activations: elsewhere these are
rounded twice.
"""
STEP = 16
LEARNT = {("lite0", "openvino"): Learnt(4, 600)}
"""Where the fastest result goes on to learn from what it makes in float, and from what."""
TRAINED = "convkit, trained"
_SAME = 0.1
"""Budgets that lie so near each other are one."""
SURELY = 0.97
"""Of a peer's time: so far apart lie two measurements of one network."""
_INSIDE = 0.85
"""Of a wish, what narrower layers are asked for: the interval of another measurement is to lie within it, too."""
_MEASURED = 15.0
"""Seconds that convkit measures by default."""
_MAX_DROP = 100 * MAX_DROP["agreement"]
"""Points that may be lost without a budget, as of the peers that validate; of PSNR convkit takes 5 points for 1 dB, so
0.3 dB too. In a peer's time convkit is asked for the best there is, whatever that peer lost.
"""
_FIRST = 0.3
"""Of the seconds of timing, what the peers' ratios may take before convkit is called."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """One network on one engine.

    `further`: what was made narrower, too, or trained. `over`: p50 of each convkit result, the original among them,
    over each peer's, by both names; `costs`: what the peers told of their work; `zero_shot`: percent of CIFAR's images
    that get float's class, by candidate.
    """

    case: Case
    engine: str
    measurement: Measurement
    searched: Mapping[str, Searched]
    further: Mapping[str, Searched]
    over: Mapping[tuple[str, str], Interval]
    costs: Mapping[str, Mapping[str, Any]]
    zero_shot: Mapping[str, float]
    absent: Mapping[str, str]

    @property
    def own(self) -> Mapping[str, Searched]:
        """All that convkit made."""
        return {**self.searched, **self.further}

    @property
    def rivals(self) -> list[str]:
        """The peers that ran."""
        return list(dict.fromkeys(rival for _, rival in self.over))

    @property
    def fastest(self) -> str | None:
        """The peer with the least time."""
        return min(self.rivals, key=lambda name: self.measurement[name].seconds["p50"].value, default=None)

    def score(self, candidate: str, metric: str) -> float:
        return self.measurement[candidate].metrics[metric]


@dataclass(frozen=True, slots=True)
class Bench:
    """What is asked of the comparison: see `python -m tests.bench --help`."""

    folder: Path
    target: str
    budget: float
    images: int
    reuse: bool
    without: tuple[str, ...]
    say: Callable[[str], None]


def compare(case: Case, engine: str, bench: Bench) -> Mixed:
    """Time the peers, give convkit their ratios as budgets, then time and score all. Raises product.FailedError."""
    absent: dict[str, str] = {}
    asked = [part for part in RUN_BY[engine] if part not in bench.without]
    rivals = [
        one for one in comparison.peers_of(case, engine, asked, absent, bench.say) if comparison.opens(one, absent)
    ]
    base = [comparison.candidate(case, engine, FLOAT, case.model)]
    searched = dict(_searched(case, engine, bench, _budgets(case, engine, [*base, *rivals], bench)))
    further = dict(_further(case, engine, bench, searched))
    made = searched | further
    own = [comparison.candidate(case, engine, name, one.model, **one.knobs) for name, one in made.items()]
    if engine == "openvino" and comparison.has_bf16():
        base.append(comparison.candidate(case, engine, BF16, case.model, precision="bf16"))
    bench.say(f"{case.name} in {engine}: {len(base + rivals + own)} candidates")
    measurement, recorder = comparison.timed(case, [*base, *rivals, *own], bench.budget)
    over = {(one, rival.name): recorder.ratio(one, rival.name) for one in (*made, FLOAT) for rival in rivals}
    costs = {rival.name: peers.cost(Path(rival.path)) for rival in rivals}
    agreed = dict(_zero_shot(case, [base[0], *rivals, *own], bench))
    return Mixed(case, engine, measurement, searched, further, over, costs, agreed, absent)


def _budgets(case: Case, engine: str, candidates: Sequence[Candidate], bench: Bench) -> list[float]:
    """Surely no more than the peers' times over float's, and the case's own wishes, of those that lie near each other
    the least; float's own for who is slower than that. The largest first.
    """
    bench.say(f"{case.name}: the peers' ratios")
    measurement, _ = comparison.timed(case, list(candidates), bench.budget * _FIRST)
    ratios = [measurement[one.name].ratios["p50"].value for one in candidates[1:]]
    asked = [*(SURELY * ratio for ratio in ratios if ratio < 1), *WISHES.get((case.name, engine), ())]
    found: list[float] = []
    for ratio in sorted(asked):
        if not found or ratio > found[-1] * (1 + _SAME):
            found.append(ratio)
    slower = [1.0] if any(ratio >= 1 for ratio in ratios) else []
    return [*slower, *found[::-1]]


def _searched(case: Case, engine: str, bench: Bench, budgets: Sequence[float]) -> Iterator[tuple[str, Searched]]:
    """convkit's results by name: without a budget first, which makes the tables that the others are solved from."""
    for latency in (None, *(f"<={budget:.3f}x" for budget in budgets)):
        name = "convkit" if latency is None else f"convkit {latency}"
        bench.say(f"{case.name}: {name} for {bench.target}")
        options = _options(bench, _MAX_DROP if latency is None else 100.0)
        formats, folder = _formats(engine), bench.folder / case.name / bench.target
        yield name, product.searched(case, bench.target, folder, formats, latency, options, reuse=bench.reuse)


def _further(case: Case, engine: str, bench: Bench, searched: Mapping[str, Searched]) -> Iterator[tuple[str, Searched]]:
    """What goes beyond formats: see WISHES and LEARNT."""
    target, folder = bench.target, bench.folder / case.name / bench.target
    *_, (fastest, one) = searched.items()
    for wish in WISHES.get((case.name, engine), ()) if one.missed else ():
        latency = f"<={_INSIDE * wish:.3f}x"
        bench.say(f"{case.name}: convkit shrink {latency} for {target}")
        options = [*_options(bench, 100.0), "--step", str(STEP)]
        made = product.shrunk(case, target, folder, _formats(engine), latency, options, reuse=bench.reuse)
        yield f"convkit shrink {latency}", made
    if (case.name, engine) in LEARNT:
        bench.say(f"{case.name}: {fastest}, trained for {target}")
        learnt, output = LEARNT[case.name, engine], folder / "learnt"
        command = distillation.trained(case, one.folder / "plan.yaml", target, learnt, output)
        yield TRAINED, Searched(output / "trained", one.latency, TRAINED, "", command, None, agreed=True)


def _formats(engine: str) -> str:
    return FORMATS[engine] if comparison.has_bf16() else FORMATS[engine].removesuffix(",bf16")


def _options(bench: Bench, drop: float) -> list[str]:
    return ["--budget", f"{min(bench.budget, _MEASURED):g}", "--max-drop", f"{drop:g}"]


def _zero_shot(case: Case, candidates: Sequence[Candidate], bench: Bench) -> Iterator[tuple[str, float]]:
    """Of the classifier whose figures are known; the first candidate is the float network."""
    if case.name != "lite0" or not bench.images:
        return
    reference = None
    for one in candidates:
        bench.say(f"{case.name}: zero-shot, {one.name}")
        classes = cifar.predictions(zero_shot.scores(one, bench.images))
        reference = classes if reference is None else reference
        yield one.name, float((classes == reference).mean() * 100)


def as_dict(found: Mixed) -> dict[str, Any]:
    """JSON of all that was found."""
    return {
        "network": found.case.name,
        "engine": found.engine,
        "measurement": dataclasses.asdict(found.measurement),
        "searched": {name: dataclasses.asdict(one) | {"knobs": dict(one.knobs)} for name, one in found.own.items()},
        "p50_over_peer": {f"{one} / {rival}": dataclasses.asdict(ratio) for (one, rival), ratio in found.over.items()},
        "peers": {name: dict(cost) for name, cost in found.costs.items()},
        "zero_shot_agreement": dict(found.zero_shot),
        "absent": dict(found.absent),
    }
