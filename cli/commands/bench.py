"""Time models side by side on their engines, with intervals, and hold them against gates.

Every candidate lives in a process of its own and takes short turns with the others, in an order drawn anew each round.
Ratios are those within a round, so that what else the machine does moves both sides alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from convkit.cli import figures, options, show, values
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.compress.model import parse_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convkit.cli.options import Shapes
    from convkit.compress.data import Data, DataRef
    from convkit.runtimes.bench.candidate import Candidate
    from convkit.runtimes.bench.measure import Measurement, Settings
    from convkit.runtimes.bench.verdict import Verdict
    from convkit.runtimes.bench.worker import Worker
    from convkit.runtimes.session import Options


@click.command
@click.argument("candidates", nargs=-1, required=True, metavar="[ENGINE:]MODEL...")
@click.option("--baseline", metavar="[ENGINE:]MODEL", help="What the others are compared with.  [default: the first]")
@click.option("--engine", type=values.Part("runtimes"), metavar="NAME", help="The engine of models without one.")
@options.target
@options.threads
@click.option("--batch", type=click.IntRange(1), help="Samples a call.  [default: what the model fixes, else 1]")
@click.option(
    "--shape",
    multiple=True,
    metavar="INPUT:SHAPE",
    callback=lambda _context, _option, values: dict(map(parse_shape, values)),
    help="Fix an input's shape: x:1x3x224x224, or ids:int64:1x16.",
)
@options.data(what="Samples to run on (random ones without)")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Score the data with it, such as top1.")
@click.option("--gate", "gates", multiple=True, metavar="GATE", help='What must hold: "p50 <= 0.8x"; see below.')
@click.option("--strict", is_flag=True, help="An undecided gate fails too.")
@click.option(
    "--budget",
    type=click.FloatRange(0.1),
    callback=values.finite,
    default=20.0,
    show_default=True,
    help="Seconds of timing.",
)
@options.seed
@options.json
@click.option("--markdown", is_flag=True, help="Print the result as Markdown.")
@click.option("--junit", type=values.WORD, metavar="FILE", help="Write the gates as JUnit XML.")
@click.option(
    "--custom-smaller-is-better",
    type=values.WORD,
    metavar="FILE",
    help="Write the figures for github-action-benchmark.",
)
def bench(
    *,
    candidates: Sequence[str],
    baseline: str | None,
    engine: str | None,
    target: str | None,
    threads: int,
    batch: int | None,
    shape: Shapes,
    data: DataRef | None,
    metrics: Sequence[str],
    gates: Sequence[str],
    strict: bool,
    budget: float,
    seed: int,
    as_json: bool,
    markdown: bool,
    **files: str | None,
) -> None:
    """Time models side by side, with intervals, and hold them against gates.

    \b
    Examples:
      convkit bench onnxruntime:net.onnx onnxruntime:out/model.onnx
      convkit bench --engine openvino net.onnx out/model.onnx --gate "p50 <= 0.8x"
      convkit bench openvino:net.onnx openvino,precision=bf16:net.onnx --json
      convkit bench onnxruntime:net.onnx onnxruntime,plan=out/plan.yaml:out/model.onnx
      convkit bench --target onnxruntime-cpu net.onnx out/model.onnx --data photos/ --gate "top1 >= -0.5"

    \b
    Gates compare with the baseline of the same run, or with a fixed limit:
      p50 <= 0.8x         p50 p90 p99 mean throughput memory size load, as a ratio
      p50 <= 12ms         fixed; weaker, for another machine or day moves it
      size <= 2MB         B kB MB GB KiB MiB GiB, also for memory
      throughput >= 100/s
      top1 >= -0.5        signed: difference to the baseline; unsigned: the metric itself
      agreement >= 97     with the baseline's answers
    A gate fails (exit 1) when the whole 95 % interval is beyond the limit; it is undecided, which fails with
    --strict only, when the limit lies inside.

    \b
    Knobs of one candidate stand behind its engine, ENGINE,KNOB=VALUE:MODEL; plan=FILE takes those of a plan.yaml:
      threads=N  weights=FILE (eager)
      onnxruntime: spinning=on|off  optimization=none|basic|extended|all
      openvino:    precision=f32|bf16|f16  pinning=on|off  hyperthreading=on|off  partitioner=static|auto
      eager_cuda:  precision=f32|tf32|bf16|f16  graphs=on|off  compile=on|off  channels_last=on|off
      onnxruntime_cuda: optimization=…  precision=f32|tf32  channels_last=on|off
      tensorrt, tensorrt_rtx: graphs=on|off  plugin=FILE

    \b
    On a GPU a call takes what the GPU's own clock says, with inputs and outputs there; clocks and temperature are told.
    """
    from convkit.runtimes.bench import gate, verdict
    from convkit.runtimes.bench.measure import Settings
    from convkit.runtimes.session import Options

    if as_json and markdown:
        raise ConvkitError("--json and --markdown are both given", hint="choose one")
    parsed = tuple(gate.parse(text) for text in gates)
    wanted = tuple(dict.fromkeys((*metrics, *verdict.metrics_of(parsed))))
    shapes = {name: declared.sample for name, declared in shape.items()}
    dtypes = {name: declared.dtype for name, declared in shape.items() if declared.dtype}
    settings = Options(threads=threads, shapes=shapes, dtypes=dtypes, batch=batch or 1)
    chosen = _candidates(candidates, baseline, _engine(engine, target), settings)
    verdict.check(parsed, len(chosen))
    _check(files, wanted, data)
    measurement = _measure(chosen, data, Settings(budget=budget, seed=seed, batch=batch, metrics=wanted))
    judged = verdict.judge(measurement, parsed, strict=strict)
    _write(measurement, judged, files)
    _show(measurement, judged, "json" if as_json else "markdown" if markdown else "table")
    if judged.failed:
        raise VerdictError(figures.missed(judged))


PART = bench


def _engine(engine: str | None, target: str | None) -> str | None:
    """The engine of models that name none: given, or the target's, which must run here."""
    if target is None or engine is not None:
        return engine
    from convkit.cli import foretold
    from convkit.compress import target as targets
    from convkit.compress.errors import NotAvailableError

    found = targets.load(target)
    if not foretold.at_hand(found):
        raise NotAvailableError(f"{found.about} is not at hand: nothing is measured", hint="run it where there is one")
    return found.engine


def _candidates(texts: Sequence[str], baseline: str | None, engine: str | None, settings: Options) -> list[Candidate]:
    """The baseline first; a text that is given twice is measured twice, its name numbered."""
    import dataclasses

    from convkit.runtimes.bench import candidate

    others = [*texts]
    if baseline in others:
        others.remove(baseline)
    ordered = [baseline, *others] if baseline else others
    found: dict[str, Candidate] = {}
    for text in ordered:
        parsed = candidate.parse(text, engine, settings)
        same = sum(name.partition(" #")[0] == text for name in found)
        name = f"{text} #{same + 1}" if same else text
        found[name] = dataclasses.replace(parsed, name=name)
    return list(found.values())


def _check(files: dict[str, str | None], metrics: Sequence[str], data: DataRef | None) -> None:
    """What would fail after the measurement fails before it."""
    from convkit.compress import metric

    for name in metrics:
        metric.load(name)
    if metrics and data is None:
        raise ConvkitError(f"metric {metrics[0]!r} needs data", hint="give --data")
    for file in files.values():
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise ConvkitError(f"the folder of {file} is not there", hint="make it first")
        if file is not None and Path(file).is_dir():
            raise ConvkitError(f"{file} is a folder", hint="name a file in it")


def _measure(candidates: Sequence[Candidate], ref: DataRef | None, settings: Settings) -> Measurement:
    from convkit.runtimes.bench.measure import measure

    shapes = candidates[0].options.shapes
    with show.progress(f"measuring {len(candidates)} candidates") as say:
        told = 0.0

        def tell(share: float) -> None:
            nonlocal told
            if share - told >= _TOLD_EVERY:
                told = share
                say(f"{share:.0%} of {settings.budget:g} s")

        return measure(candidates, data=_loader(ref, shapes) if ref else None, settings=settings, progress=tell)


_TOLD_EVERY = 0.2


def _loader(ref: DataRef, shapes: Mapping[str, tuple[int, ...]]) -> Callable[[Worker], Data]:
    """Loads the data once the baseline has said what it takes."""
    import dataclasses

    from convkit.compress import data

    def load(worker: Worker) -> Data:
        specs = tuple(
            dataclasses.replace(
                spec, shape=shapes.get(spec.name, spec.shape), sample=shapes.get(spec.name, spec.sample)
            )
            for spec in worker.inputs
        )
        return data.load(ref, specs)

    return load


def _write(measurement: Measurement, verdict: Verdict, files: dict[str, str | None]) -> None:
    """Each file in the format that its option is named after."""
    from convkit.cli.reports import Report
    from convkit.compress import parts, record

    for name, path in files.items():
        if path is not None:
            report: Report = parts.load("cli/reports", name)
            record.write_text(path, report.write(measurement, verdict))


def _show(measurement: Measurement, verdict: Verdict, how: str) -> None:
    from convkit.cli import figures
    from convkit.compress import parts

    for warning in measurement.warnings:
        show.warning(warning)
    if how != "table":
        show.text(parts.load("cli/reports", how).write(measurement, verdict))
        return
    show.table(*figures.candidates(measurement))
    show.text(figures.machine(measurement))
    for line in figures.gpus(measurement):
        show.text(line)
    if verdict.judgements:
        show.table(*figures.gates(verdict.judgements))
