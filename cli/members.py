"""What `convkit shrink FAMILY` does: the most accurate member within a limit on measured time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import batches, elastic_training, show
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError, VerdictError

if TYPE_CHECKING:
    from torch import Tensor

    from convkit.cli.quantizing import Job
    from convkit.compress.budget import Budget
    from convkit.compress.model import Model
    from convkit.compress.search.members import Found
    from convkit.compress.shrinking.levels import Times
    from convkit.compress.training.choice import Choice
    from convkit.compress.training.elastic import Member
    from convkit.compress.training.family import Family
    from convkit.runtimes.bench.measure import Measurement, Result
    from convkit.runtimes.latency.table import LatencyTable

SCHEMA_VERSION = 1
_EXACT = ("simplify", "fold_batch_norm")
_FINALISTS = 3
_TABLE_SHARE = 0.3
"""Seconds of measuring for each of the members that tell what layers take, as part of the budget."""
_METRIC = "top1"


@dataclass(frozen=True, slots=True)
class Picked:
    """The members that were measured to the end, the one that is kept, and whether it keeps to the limit."""

    kept: Found
    model: bytes
    within: bool
    finalists: Sequence[Found]
    known: int
    measurement: Measurement


def shrink(job: Job, found: Family, budget: Budget, output: str, *, as_json: bool) -> None:
    """Pick a member within `budget`, write `output`, and tell. Raises VerdictError where it is out of reach."""
    if job.estimated:
        raise ConvkitError(
            "members are picked by measured time", hint=f"run it where {job.target.engine} is: see `convkit doctor`"
        )
    if budget.quantity != "seconds":
        raise ConvkitError("members of a family are picked by time", hint='give --latency "<=5ms" or "<=0.5x"')
    with tempfile.TemporaryDirectory(prefix="convkit-") as folder, show.progress(f"picking of {found.path}") as say:
        picked = _picked(job, found, budget, Path(folder), say)
    report = _report(found, picked)
    with record.output_folder(output) as made:
        record.write_bytes(made / record.MODEL, picked.model)
        digests = {"model": job.model.digest, "data": job.data.digest}
        place.describe(made, report, digests=digests, target=job.target.name, seed=job.seed, threads=job.threads)
    if as_json:
        show.json(report)
    else:
        _tell(report, output)
    if not picked.within:
        raise VerdictError(
            f"--latency {budget.text!r} is out of reach of this family", hint="the fastest member is kept"
        )


def _picked(job: Job, found: Family, budget: Budget, folder: Path, say: Callable[[str], None]) -> Picked:
    from convkit.compress.search import members

    data, held = batches.split(job.data, job.seed)
    if held.labels is None:
        raise ConvkitError("members are picked by accuracy, which needs labels", hint="give them as `labels`")
    arrays, _ = elastic_training.tensors(found.model, data)
    calibration = elastic_training.batches(arrays)
    say("what layers of members take")
    times, rest = _times(job, found, calibration, folder)
    whole = found.elastic.member(found.space.whole)

    taken: dict[tuple[object, ...], float] = {}

    def seconds(choice: Choice) -> float:
        if choice.key not in taken:
            taken[choice.key] = rest + _seconds(times, found.elastic.member(choice), whole)
        return taken[choice.key]

    def score(choice: Choice) -> float:
        member = found.elastic.member(choice)
        member.recalibrate(calibration)
        value = elastic_training.top1(member, found.model, held)
        say(f"{value:.2f} % at {seconds(choice) * 1e3:.2f} ms")
        return value

    own = seconds(found.space.whole)
    ranked = members.evolve(found.space, seconds, score, budget.absolute(own))
    finalists = ranked[:_FINALISTS] or [
        members.Found(found.space.least, score(found.space.least), seconds(found.space.least))
    ]
    return _measured(job, found, budget, finalists, len(ranked), calibration, folder)


def _measured(
    job: Job,
    found: Family,
    budget: Budget,
    finalists: Sequence[Found],
    known: int,
    calibration: Sequence[tuple[Tensor, ...]],
    folder: Path,
) -> Picked:
    """The finalists side by side with the whole network, on the engine."""
    from convkit.runtimes.bench.candidate import Candidate
    from convkit.runtimes.bench.measure import Settings, measure
    from convkit.runtimes.session import Options

    _, held = batches.split(job.data, job.seed)
    names = ["whole", *(f"member {at}" for at in range(1, len(finalists) + 1))]
    files = {name: folder / f"{name}.onnx".replace(" ", "") for name in names}
    for name, choice in zip(names, [found.space.whole, *(one.choice for one in finalists)], strict=True):
        record.write_bytes(files[name], _file(job, found, choice, calibration))
    run = Options(threads=job.threads)
    candidates = [Candidate(name, job.engine, str(path), run) for name, path in files.items()]
    settings = Settings(budget=job.budget, seed=job.seed, metrics=(_METRIC, "agreement"))
    measured = measure(candidates, names[0], held, settings)
    limit = [_excess(budget, measured[name], measured[names[0]]) for name in names[1:]]
    within = [at for at, excess in enumerate(limit) if excess <= 0]
    best = max(
        within,
        key=lambda at: measured[names[at + 1]].metrics[_METRIC],
        default=min(range(len(limit)), key=limit.__getitem__),
    )
    kept = files[names[best + 1]].read_bytes()
    return Picked(finalists[best], kept, bool(within), finalists, known, measured)


def _excess(budget: Budget, result: Result, whole: Result) -> float:
    """By what part of the limit the network exceeds it."""
    if budget.relative:
        return result.ratios["p50"].value / budget.limit - 1
    return result.seconds["p50"].value / budget.absolute(whole.seconds["p50"].value) - 1


def _file(job: Job, found: Family, choice: Choice, calibration: Sequence[tuple[Tensor, ...]]) -> bytes:
    from convkit.export import exporter

    made = _prepared(found, choice, calibration)
    return exporter.of_engine(job.engine).bytes(made, job.target.opset)


def _prepared(found: Family, choice: Choice, calibration: Sequence[tuple[Tensor, ...]]) -> Model:
    """A member as a network of its own, its norms folded."""
    from convkit.compress.apply import prepare
    from convkit.compress.training import family

    member = found.elastic.member(choice)
    member.recalibrate(calibration)
    return prepare(family.network(found, member.network()), _EXACT)


def _times(job: Job, found: Family, calibration: Sequence[tuple[Tensor, ...]], folder: Path) -> tuple[Times, float]:
    """What layers take at parts of their products, by profiles of a few members side by side; what the rest takes."""
    from convkit.runtimes.latency import builds, measure
    from convkit.runtimes.latency.profile import Schedule
    from convkit.runtimes.session import Options

    sizes = found.space.whole, found.space.between(0.5), found.space.least
    chosen = list({one.key: one for one in sizes}.values())
    made = [_prepared(found, choice, calibration) for choice in chosen]
    jobs = []
    for at, model in enumerate(made):
        path = folder / f"times{at}.onnx"
        record.write_bytes(path, _file(job, found, chosen[at], calibration))
        names, run = (*_EXACT, f"member {at}"), Options(threads=job.threads)
        jobs.append(measure.Job(model, job.target, names, _written(path), run, builds=(builds.FLOAT,)))
    tables = measure.measure(jobs, Schedule(job.budget * _TABLE_SHARE * len(jobs), job.seed))
    return _joined(found, chosen, tables), _rest(tables[0], found)


def _written(path: Path) -> Callable[[object], Path]:
    """Makes a file that there is already."""
    return lambda _layers: path


def _rest(table: LatencyTable, found: Family) -> float:
    """What belongs to no layer that has products."""
    from convkit.compress.training import elastic

    counted = elastic.work(found.elastic.member(found.space.whole))
    others = (seconds[table.floating] for name, seconds in table.layers.items() if name not in counted)
    return table.rest + sum(others)


def _joined(found: Family, chosen: Sequence[Choice], tables: Sequence[LatencyTable]) -> Times:
    whole = found.elastic.member(chosen[0])
    known: dict[str, list[tuple[float, float]]] = {}
    for choice, table in zip(chosen, tables, strict=True):
        left = _parts(found.elastic.member(choice), whole)
        for name, seconds in table.layers.items():
            if left.get(name):
                known.setdefault(name, []).append((left[name], seconds[table.floating]))
    return {name: sorted(dict(points).items()) for name, points in known.items()}


def _seconds(times: Times, member: Member, whole: Member) -> float:
    from convkit.compress.shrinking import levels

    left = _parts(member, whole)
    return sum(levels.seconds(times, name, left[name]) for name in times if left.get(name))


def _parts(member: Member, whole: Member) -> Mapping[str, float]:
    """What a member has of the products of each layer."""
    from convkit.compress.training import elastic

    own, all_of_it = elastic.work(member), elastic.work(whole)
    return {name: own.get(name, 0.0) / count for name, count in all_of_it.items() if count}


def _report(found: Family, picked: Picked) -> dict[str, Any]:
    import dataclasses

    def told(one: Found) -> dict[str, Any]:
        choice = one.choice
        text = {"widths": dict(choice.widths), "left_out": list(choice.out), "kernels": dict(choice.kernels)}
        return {**text, _METRIC: one.score, "expected_seconds": one.seconds}

    return {
        "schema_version": SCHEMA_VERSION,
        "family": found.path,
        "kept": told(picked.kept),
        "within": picked.within,
        "members_scored": picked.known,
        "finalists": [told(one) for one in picked.finalists],
        "measurement": dataclasses.asdict(picked.measurement),
    }


def _tell(report: Mapping[str, Any], output: str) -> None:
    rows = []
    for result in report["measurement"]["results"]:
        ratio, seconds = result["ratios"]["p50"], result["seconds"]["p50"]
        times = f"{seconds['value'] * 1e3:.3f}", f"{ratio['value']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
        rows.append((result["name"], *times, f"{result['metrics'][_METRIC]:.2f}"))
    show.table(("network", "p50 ms", "ratio (95 %)", _METRIC), rows)
    show.text(f"{report['members_scored']} members scored; the one kept is in {output}")
