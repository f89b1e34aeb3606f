"""What the benches found, as tables in the terminal."""

import dataclasses
from collections.abc import Sequence

from convkit.cli import figures, show
from tests.bench.comparison import Comparison
from tests.bench.latency import Predictions
from tests.bench.limits import Line
from tests.bench.matrix import SMS, Cell
from tests.bench.mixed import Mixed
from tests.bench.rounding import Rounding
from tests.bench.sensitivity import Correlation
from tests.bench.zero_shot import ZeroShot


def comparison(found: Comparison) -> None:
    names = list(found.measurement.results[0].metrics)
    rows = []
    for result in found.measurement.results:
        over = found.over_peer.get(result.name)
        times = [figures.milliseconds(result.seconds["p50"].value), figures.ratio(result.ratios["p50"])]
        scores = [f"{result.metrics[name]:.2f}" for name in names]
        rows.append([result.name, *times, figures.ratio(over) if over else "", *scores])
    columns = ["candidate", "p50 ms", "ratio to float (95 %)", "convkit over it (95 %)"]
    title = f"{found.case.name} in {found.engine}: {found.product.verdict} ({found.product.kept})"
    show.table([*columns, *(name.rpartition(":")[2] for name in names)], rows, title=title)
    for warning in found.measurement.warnings:
        show.warning(warning)
    for name, reason in found.absent.items():
        show.warning(f"{found.case.name} in {found.engine}: without {name}: {reason}")


def mixed(found: Mixed) -> None:
    names = list(found.measurement.results[0].metrics)
    rows = []
    for result in found.measurement.results:
        times = [figures.milliseconds(result.seconds["p50"].value), figures.ratio(result.ratios["p50"])]
        scores = [f"{result.metrics[name]:.2f}" for name in names]
        zero = f"{found.zero_shot[result.name]:.2f}" if result.name in found.zero_shot else ""
        rows.append([result.name, *times, *scores, zero])
    title = f"{found.case.name} in {found.engine}: mixed precision"
    show.table(["candidate", "p50 ms", "ratio to float (95 %)", *names, "zero-shot"], rows, title=title)
    for warning in found.measurement.warnings:
        show.warning(warning)
    for name, one in found.own.items():
        if one.missed:
            show.warning(f"{title}: {name}: {one.missed}")
    for name, reason in found.absent.items():
        show.warning(f"{title}: without {name}: {reason}")


def zero_shot(found: ZeroShot) -> None:
    rows = [[name, f"{found.accuracy[name]:.2f}", f"{found.agreement[name]:.2f}"] for name in found.accuracy]
    show.table(["candidate", "accuracy %", "agreement %"], rows, title=f"zero-shot CIFAR-10, {found.images} images")


def rounding(found: Rounding) -> None:
    columns = ["weights in 4 bits", "top-1 %", "agreement %", "zero-shot %", "its agreement %", "seconds", "simulated"]
    rows = [
        [name, *("" if value is None else f"{value:.2f}" for value in dataclasses.astuple(way))]
        for name, way in found.ways.items()
    ]
    show.table(columns, rows, title=f"lite0 in W4A8, {found.photos} photos, {found.images} images")
    rows = [[name, f"{gaussian:.1f}", f"{heavy:.1f}"] for name, (gaussian, heavy) in found.sqnr.items()]
    show.table(["format", "Gaussian dB", "heavy-tailed dB"], rows, title="SQNR at the best range")


def matrix(found: Sequence[Cell]) -> None:
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for cell in found:
        rows.setdefault((cell.network, cell.number), {})[cell.sm] = cell.words
    table = [[name, number, *(cells.get(sm, "") for sm in SMS)] for (name, number), cells in rows.items()]
    title = "TensorRT for RTX: layers with weights that run as planned, by format"
    show.table(["network", "format", *(f"SM {sm}" for sm in SMS)], table, title=title)
    for words in dict.fromkeys(f"{c.network} in {c.number}: {c.refused}" for c in found if not c.foreseen):
        show.warning(words)
    for cell in found:
        for words in list(cell.departing.values())[:3]:
            show.warning(f"{cell.network}, SM {cell.sm}: {words}")


def sensitivity(found: Correlation) -> None:
    rows = [[option, f"{rank:.3f}"] for option, rank in {"all": found.all_pairs, **found.by_option}.items()]
    title = (
        f"{found.network}, sensitivity: {found.pairs} pairs foretold on {found.samples} samples by {found.probes} "
        f"probes in {found.all_seconds:.1f} s, measured on {found.measured_on} others in {found.measured_seconds:.1f} s"
    )
    show.table(["weight/activation", "Spearman"], rows, title=title)


def predictions(found: Predictions) -> None:
    rows = [
        [m.name, str(m.low), f"{m.predicted:.3f}", figures.ratio(m.measured), f"{m.error:+.1%}"] for m in found.mixtures
    ]
    title = f"{found.network} in {found.engine} {found.precision}, table measured in {found.seconds:.0f} s"
    show.table(["mixture", "low", "foretold", "measured (95 %)", "error"], rows, title=title)


def limits(lines: Sequence[Line]) -> None:
    rows = []
    for line in lines:
        one = line.measured
        interval = "" if one.low == one.high else f"{one.low:.3f}–{one.high:.3f}"
        limit = f"{line.sense} {line.limit:.2f} {line.unit}"
        rows.append([line.where, line.what, f"{one.value:.3f} {line.unit}", interval, limit, line.verdict])
    show.table(["network, engine", "what", "measured", "95 %", "limit", "verdict"], rows, title="limits")
