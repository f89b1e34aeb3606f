"""The measurement: a network's builds opened side by side, profiled, and made into its LatencyTable."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convkit.compress import code, parts, record
from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.compress.model import Model
from convkit.compress.target import Target
from convkit.runtimes.bench import inputs as feeds
from convkit.runtimes.bench import machine
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.worker import Inputs, ProcessWorker, Worker
from convkit.runtimes.latency import builds as recipes
from convkit.runtimes.latency import disturbance as disturbances
from convkit.runtimes.latency.builds import Build, Write
from convkit.runtimes.latency.disturbance import Disturbance
from convkit.runtimes.latency.fit import fit
from convkit.runtimes.latency.profile import Profile, Schedule, profile
from convkit.runtimes.latency.structure import structure
from convkit.runtimes.latency.table import Fingerprint, LatencyTable
from convkit.runtimes.session import Options

_FLOATING = {"f32": "fp32", "tf32": "fp32", "bf16": "bf16", "f16": "fp16"}


@dataclass(frozen=True, slots=True)
class Job:
    """A prepared `model` (by `methods`) for `target`, and how its engine is to run it.

    `write` makes the file of a build; `inputs` is one sample for the calls, random numbers by default. `builds`: the
    names of those that are made, all by default.
    """

    model: Model
    target: Target
    methods: tuple[str, ...]
    write: Write
    options: Options = field(default_factory=Options)
    inputs: Inputs | None = None
    open: Callable[[Candidate], Worker] = ProcessWorker
    builds: tuple[str, ...] | None = None


def floating(options: Options) -> str:
    """The format that layers in float run in."""
    return _FLOATING[options.precision]


def fingerprint(
    model: Model, target: Target, methods: Sequence[str], options: Options, inputs: Inputs | None = None
) -> Fingerprint:
    """What a table that is measured now, on `inputs`, holds for."""
    facts = machine.lasting()
    knobs = dataclasses.asdict(options) | {"methods": list(methods)}
    shapes = {name: list(shape) for name, shape in options.shapes.items()}
    sizes = {name: list(array.shape) for name, array in (inputs or {}).items()}
    told = record.digest_bytes(repr(target).encode())
    return Fingerprint(
        model.digest,
        target.name,
        target.engine,
        str(parts.load("runtimes", target.engine).version()),
        facts,
        knobs | {"shapes": shapes, "inputs": sizes, "target": told, "code": code.digest()},
    )


def measure(jobs: Sequence[Job], schedule: Schedule | None = None) -> list[LatencyTable]:
    """Tables on this machine of networks that read the same inputs, measured side by side.

    Raises ConvkitError where the engine refuses a build.
    """
    found = [recipes.patterns(job.model, job.target, job.builds) for job in jobs]
    builds = [
        [Build(name, layers, job.write(layers), name in recipes.singles(job.target)) for name, layers in own.items()]
        for job, own in zip(jobs, found, strict=True)
    ]
    busy = disturbances.busy()
    with contextlib.ExitStack() as stack:
        opened = [
            [(one, worker) for one in own if (worker := _opened(job, one, stack)) is not None]
            for job, own in zip(jobs, builds, strict=True)
        ]
        workers = [worker for own in opened for _, worker in own]
        profiles = iter(profile(workers, _inputs(jobs[0], workers), schedule or Schedule()))
    return [_table(job, [(one, next(profiles)) for one, _ in own], busy) for job, own in zip(jobs, opened, strict=True)]


def _table(job: Job, profiled: Sequence[tuple[Build, Profile]], busy: float) -> LatencyTable:
    network = structure(job.model, job.target)
    fitted = fit(network, profiled, floating(job.options))
    return LatencyTable(
        fingerprint(job.model, job.target, job.methods, job.options, job.inputs),
        False,
        floating(job.options),
        fitted.layers,
        network.tensors,
        fitted.changes,
        fitted.rest,
        fitted.mapped,
        Disturbance(busy, max(one.spread for _, one in profiled)),
    )


def _opened(job: Job, build: Build, stack: contextlib.ExitStack) -> Worker | None:
    """None for a format that this device has no kernels for."""
    try:
        worker = job.open(Candidate(build.name, job.target.engine, str(build.path), job.options))
    except ConvkitError as error:
        if not build.single or isinstance(error, NotAvailableError):
            raise
        return None
    stack.callback(worker.close)
    return worker


def _inputs(job: Job, workers: Sequence[Worker]) -> Inputs:
    """One sample, given to every worker."""
    specs = workers[0].inputs
    given = job.inputs
    if given is None:
        (given, *_) = feeds.random(specs, feeds.shapes(specs, job.options.shapes, None), seed=0)
    if sorted(given) != sorted(spec.name for spec in specs):
        raise ConvkitError(f"the latency sample has inputs {sorted(given)}, the network other ones")
    for worker in workers:
        worker.prepare([given])
    return given
