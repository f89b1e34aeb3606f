"""What `make bench` runs: convkit and other quantizers on the same networks, data and engines, held against limits.

python -m tests.bench -o OUT [PART...]     PART: one of RUNS; those of _ON_REQUEST run only where they are asked for

Each part leaves PART.json in OUT; REPORT.md there holds all of them as tables.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from convkit.cli import show
from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench import machine
from tests.bench import (
    cases,
    cifar,
    comparison,
    compressed,
    convs,
    distilled,
    elastic,
    engines,
    enumerated,
    gpu,
    joint,
    kernels,
    latency,
    limits,
    matrix,
    mixed,
    mixed_limits,
    product,
    reporting,
    resolve,
    rounding,
    searched,
    sensitivity,
    shown,
    switching,
    waves,
    zero_shot,
)
from tests.bench import peer as peers
from tests.bench.limits import Line
from tests.bench.networks import OCR
from tests.bench.product import Quantized

_ON_REQUEST = ("zero-shot", "elastic-cifar", "searched-cifar", "kinds-cifar", "gpu", "kernels")
TARGETS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino-cpu"}


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for; nothing is quantized twice."""

    output: Path
    networks: tuple[str, ...]
    engines: tuple[str, ...]
    budget: float
    samples: int | None
    images: int
    reuse: bool
    without: tuple[str, ...]
    say: Callable[[str], None]
    made: dict[tuple[str, str], Quantized] = dataclasses.field(default_factory=dict)

    def case(self, name: str) -> cases.Case:
        return cases.load(name, self.samples)

    def product(self, case: cases.Case, engine: str) -> Quantized:
        key = case.name, engine
        if key not in self.made:
            self.say(f"{case.name}: convkit quantize for {TARGETS[engine]}")
            self.made[key] = product.quantized(case, TARGETS[engine], self.output, reuse=self.reuse)
        return self.made[key]


def networks(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Each network on each engine, interleaved with its peers."""
    report["comparisons"] = []
    for name in run.networks:
        case = run.case(name)
        for engine in run.engines:
            try:
                found = comparison.compare(case, engine, run.product(case, engine), run.budget, run.say)
            except product.FailedError as failure:
                yield limits.of_failure(f"{name}, {engine}", failure)
                continue
            shown.comparison(found)
            report["comparisons"].append(comparison.as_dict(found))
            yield from limits.of_comparison(found)


def commands(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Whole commands: quantize on Lite0, and --help."""
    case = run.case("lite0")
    for engine in run.engines:
        try:
            yield from limits.of_quantize(engine, run.product(case, engine))
        except product.FailedError as failure:
            yield limits.of_failure(f"lite0, {engine}", failure)
    report["help_seconds"] = product.help_seconds()
    yield from limits.of_help(report["help_seconds"])


def resolves(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """New budgets from saved tables."""
    found = resolve.resolve(run.say)
    report["resolve"] = dataclasses.asdict(found)
    yield from limits.of_resolve(found)


def zero_shots(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """CIFAR-10 without having been trained for it."""
    case = run.case("lite0")
    found = zero_shot.score(case, {engine: run.product(case, engine) for engine in TARGETS}, run.images, run.say)
    report["zero_shot"] = dataclasses.asdict(found)
    shown.zero_shot(found)
    yield from limits.of_zero_shot(found, list(TARGETS))


def sensitivities(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Every layer in every option, foretold and measured."""
    report["sensitivity"] = []
    for name in (name for name in run.networks if name in sensitivity.SAMPLES):
        found = sensitivity.correlate(run.case(name), run.say)
        report["sensitivity"].append(dataclasses.asdict(found))
        shown.sensitivity(found)
        yield from limits.of_sensitivity(found)


def mixes(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Searched formats beside peers, under each peer's latency."""
    report["mixed"] = []
    for name in (name for name in run.networks if name in mixed.NETWORKS):
        case = run.case(name)
        for engine in run.engines:
            folder, target = run.output / "mixed", TARGETS[engine]
            asked = mixed.Bench(folder, target, run.budget, run.images, run.reuse, run.without, run.say)
            try:
                found = mixed.compare(case, engine, asked)
            except product.FailedError as failure:
                yield limits.of_failure(f"{name}, {engine}, mixed", failure)
                continue
            report["mixed"].append(mixed.as_dict(found))
            shown.mixed(found)
            yield from mixed_limits.of_mixed(found)


def latencies(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """What the table foretells of random mixtures, and what these take."""
    report["latency"] = []
    for engine in run.engines:
        for found in latency.run(run.case("lite0"), engine, run.budget, run.say):
            report["latency"].append(dataclasses.asdict(found))
            shown.predictions(found)
            yield from limits.of_predictions(found)


def enumerations(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Every plan of a small network."""
    found = enumerated.run(run.budget, run.say)
    report["enumerated"] = dataclasses.asdict(found)
    yield from limits.of_enumerated(found)


def roundings(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Weights in 4 bits, rounded in each way."""
    found = rounding.rounded(run.case("lite0"), run.images, run.say)
    report["rounding"] = dataclasses.asdict(found)
    shown.rounding(found)
    yield from limits.of_rounding(found)


def matrices(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """TensorRT engines of every network in every format for every compute capability."""
    found, numbers = matrix.matrix(tuple(matrix.NETWORKS), run.say)
    report["matrix"] = [dataclasses.asdict(cell) | {"holds": cell.holds} for cell in found]
    report["numbers"] = [dataclasses.asdict(one) for one in numbers]
    page = matrix.document(found, numbers)
    report["engines"] = {}
    for name in (name for name in run.networks if name in engines.NETWORKS):
        files = engines.compare(run.case(name), run.output, run.say)
        report["engines"][name] = [dataclasses.asdict(one) for one in files]
        page += "\n" + engines.document(name, files)
        yield from engines.limits_of(name, files)
    (run.output / "tensorrt.md").write_text(page)
    shown.matrix(found)
    yield from limits.of_matrix(found, numbers)


def gpus(run: Run, report: dict[str, Any]) -> Iterator[Line]:
    """Every engine and precision of the GPU at hand."""
    report["comparisons"] = []
    for name in (name for name in run.networks if name not in OCR):
        for found in gpu.run(run.case(name), run.budget, run.say):
            gpu.shown(found)
            report["comparisons"].append(gpu.as_dict(found))
            yield from gpu.limits_of(found)


RUNS: Mapping[str, Callable[[Run, dict[str, Any]], Iterator[Line]]] = {
    "networks": networks,
    "commands": commands,
    "resolve": resolves,
    "sensitivity": sensitivities,
    "latency": latencies,
    "enumerated": enumerations,
    "rounding": roundings,
    "matrix": matrices,
    "mixed": mixes,
    "zero-shot": zero_shots,
    "convs": lambda run, report: convs.lines(run.say, report),
    "compressed": lambda run, report: compressed.lines(run.say, report, run.output / "compressed"),
    "joint": lambda run, report: joint.lines(run.say, report, run.output / "joint"),
    "switching": lambda run, report: switching.lines(run.say, report, run.output / "switching"),
    "searched": lambda run, report: searched.lines("fashion", run.say, report, run.output / "searched"),
    "searched-watch": lambda run, report: searched.lines("watch", run.say, report, run.output / "searched_watch"),
    "searched-cifar": lambda run, report: searched.lines("cifar", run.say, report, run.output / "searched_cifar"),
    "kinds-cifar": lambda run, report: searched.kinds("cifar", run.say, report, run.output / "kinds_cifar"),
    "distilled": lambda run, report: distilled.lines(run.case("lite0"), run.images, run.say, report, run.output),
    "waves": lambda run, report: waves.lines(run.say, report, run.output),
    "elastic": lambda run, report: elastic.lines("fashion", run.say, report, run.output / "elastic"),
    "elastic-cifar": lambda run, report: elastic.lines("cifar", run.say, report, run.output / "elastic_cifar"),
    "gpu": gpus,
    "kernels": lambda run, report: kernels.lines(run.say, report),
}


@click.command
@click.argument("parts", nargs=-1, type=click.Choice(tuple(RUNS)))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for results.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(cases.CASES)), help="Only this one.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(list(TARGETS)), help="Only this one.")
@click.option("--budget", default=60.0, show_default=True, help="Seconds of timing for each network and engine.")
@click.option("--samples", type=int, help="Only so many samples to calibrate and score on: a trial, no result.")
@click.option("--images", default=cifar.IMAGES, show_default=True, help="Images of zero-shot; 0: none in mixed.")
@click.option("--without", multiple=True, type=click.Choice(peers.PEERS), help="In mixed, leave this peer out.")
@click.option("--reuse", is_flag=True, help="Take the networks that convkit left in the folder before.")
def main(
    *,
    parts: tuple[str, ...],
    output: Path,
    names: tuple[str, ...],
    engines: tuple[str, ...],
    budget: float,
    samples: int | None,
    images: int,
    without: tuple[str, ...],
    reuse: bool,
) -> None:
    """Compare convkit with other quantizers; exit 1 when a limit is missed."""
    output.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    with show.progress("bench") as say:
        named, where = names or tuple(cases.CASES), engines or tuple(TARGETS)
        run = Run(output, named, where, budget, samples, images, reuse, without, say)
        for part in parts or [part for part in RUNS if part not in _ON_REQUEST]:
            report = _facts()
            found = list(RUNS[part](run, report))
            report["limits"] = [
                dataclasses.asdict(line) | {"met": line.met, "sure": line.sure, "verdict": line.verdict}
                for line in found
            ]
            record.write_json(output / f"{part}.json", report)
            reporting.write(output)
            lines += found
    shown.limits(lines)
    show.text(f"every figure is in {output}, as tables in {output / reporting.FILE}")
    sys.exit(1 if any(line.missed for line in lines) else 0)


def _facts() -> dict[str, Any]:
    """By what and where the figures were made."""
    every = [peers.load(part) for part in peers.PEERS]
    return {
        "schema_version": 1,
        "command": sys.argv[1:],
        "machine": machine.fingerprint(),
        "versions": record.versions(),
        "peers": {peer.name: peers.versions(peer) for peer in every},
    }


if __name__ == "__main__":
    try:
        main()
    except ConvkitError as problem:
        show.error(problem)
        sys.exit(problem.exit_code)
    except (product.FailedError, peers.RefusedError) as problem:
        show.error(f"a network could not be made: {problem}")
        sys.exit(1)
