"""The result of `convkit quantize`: its report, its folder, and what is printed of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from convkit.cli import goodness, show
from convkit.cli import output as place
from convkit.cli.contest import ORIGINAL
from convkit.compress import membership, metric, record
from convkit.compress import plan as plans

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job, Outcome
    from convkit.cli.searching import Searched


def report(job: Job, outcome: Outcome, searched: Searched | None) -> dict[str, Any]:
    """JSON of what was decided, tried and measured."""
    from convkit.cli import search_report

    best = outcome.plan.layers
    return {
        "schema_version": 1,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "target": job.target.name,
        "kept": outcome.kept,
        "estimated_latency": job.estimated,
        "engine": {"original": dict(outcome.knobs), "kept": dict(outcome.plan.engine)},
        "quantized_layers": sum(layer.weight is not None for layer in best.values()),
        "forms": dict(outcome.plan.forms),
        "widths": dict(outcome.plan.widths),
        "kept_in_float": membership.kept_in(job.model.graph),
        "held_back_samples": outcome.held_back,
        "remark": goodness.remark(outcome.held_back),
        "attempts": [{"remedy": a.remedy, "good": a.good, "scores": dict(a.scores)} for a in outcome.attempts],
        "networks": [dataclasses.asdict(result) for result in outcome.standing.results],
        "measurement": dataclasses.asdict(outcome.standing.final),
        **({} if searched is None else {"search": search_report.report(searched)}),
    }


def write(output: str, job: Job, outcome: Outcome, told: dict[str, Any], searched: Searched | None) -> None:
    """The output folder, whole or not at all."""
    from convkit.cli import search_report

    digests = {"model": job.model.digest, "data": job.data.digest, "plan": outcome.plan.digest}
    facts: dict[str, Any] = {"target": job.target.name, "seed": job.seed, "engine": dict(outcome.plan.engine)}
    with record.output_folder(output) as folder:
        record.write_bytes(folder / record.MODEL, outcome.model)
        record.write_text(folder / record.PLAN, plans.dump(outcome.plan))
        if searched is not None:
            search_report.write(searched, folder)
        place.describe(folder, told, digests=digests, threads=job.threads, **facts)


def tell(outcome: Outcome, output: str, searched: Searched | None) -> None:
    """Print the networks side by side, and what a search found."""
    from convkit.cli import search_report
    from convkit.runtimes.bench.measure import disturbed
    from convkit.runtimes.session.knobs import in_words

    results, estimated = outcome.standing.results, not outcome.standing.final.rounds
    shown = [m for m in results[0].metrics if goodness.tells(metric.load(m).unit, outcome.held_back)]
    rows = []
    for result in results:
        time, ratio = result.seconds["p50"], result.ratios["p50"]
        rows.append(
            (
                _called(result.name, outcome, searched),
                f"{time.value * 1e3:.2f} ms",
                f"{ratio.value:.3f}x",
                *(() if estimated else (f"{ratio.low:.3f}-{ratio.high:.3f}", f"{result.ratios['p10'].value:.3f}x")),
                "" if result.size is None else f"{result.size / 1e6:.2f} MB",
                *(_figure(result.metrics[m]) for m in shown),
            )
        )
    title = f"{outcome.verdict}: {outcome.reason}"
    scores = [f"{m} (tells little)" if goodness.remark(outcome.held_back) else m for m in shown]
    times = ("estimate", "ratio") if estimated else ("p50", "ratio", "95 %", "undisturbed")
    show.table(("network", *times, "size", *scores), rows, title=title)
    for words in disturbed(results):
        show.warning(words)
    if searched is not None:
        show.text(search_report.words(searched))
    for name, knobs in {"original": outcome.knobs, outcome.kept: outcome.plan.engine}.items():
        if knobs:
            show.text(f"{name} runs with {in_words(knobs)}")
    why = _why(outcome, searched, estimated=estimated)
    show.text(f"* kept, in {output}{why and f': {why}'}")


def _called(name: str, outcome: Outcome, searched: Searched | None) -> str:
    """The network's name, and whether it is the one kept, or exceeds a budget."""
    over = searched is not None and name in (searched.over or ())
    return f"{name}{' *' if name == outcome.kept else ''}{' (over budget)' if over else ''}"


def _why(outcome: Outcome, searched: Searched | None, *, estimated: bool) -> str:
    """What the network kept is the best of; "" of the original."""
    if outcome.kept == ORIGINAL:
        return ""
    if searched is None or searched.over is None:
        return _WHY_ESTIMATED if estimated else _WHY
    within = "none is within the budget; of those nearest to it" if searched.missed else "of those within the budget"
    best = searched.space.criterion.heading
    return f"{within}, the best by {best}"


_WHY_ESTIMATED = "of those as good, the fastest by estimate"
_WHY = "of those as good, the fastest when nothing else ran (the fastest tenth of the calls, against the original's)"


def _figure(value: float) -> str:
    return "–" if value >= metric.LIMIT_DB else metric.figure(value)
