"""A Ray cluster whose machines do a run's steps: one step a machine at a time, those with a target where that is.

Machines see the run's files at the same places, and name the targets they have as their resources:
`ray start --address=HEAD:6379 --resources='{"openvino-cpu": 1}'`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TextIO, TypeVar

from convkit.compress.errors import ConvkitError, NotAvailableError

LOCAL, AUTO = "local", "auto"
_PATIENCE = 5.0
"""Seconds in which a head is to answer."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Ray sets them for its workers; a step computes with as many threads as it would alone."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the cluster: its `targets` are what its resources name beside CPUs and memory."""

    key: str
    name: str
    cpus: float
    targets: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """What came of a call on a `machine`; `lost` says that the worker or the machine ended before it."""

    machine: Machine
    result: T | ConvkitError | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `joined` gives: `out` for what is to be on standard output, where Ray itself prints else; calls under way,
    by what Ray knows them by; and machines on which some were lost.
    """

    out: TextIO
    under_way: dict[Any, Machine] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)

    def free(self, target: str | None) -> Machine | None:
        """A machine that has the `target`, if there is one, and does nothing for this run. One on which a call was lost
        may be dead without Ray knowing yet: it is for where there is no other.
        """
        busy, able = {machine.key for machine in self.under_way.values()}, self.machines(target)
        trusted = [one for one in able if one.key not in self.doubtful]
        return next((one for one in trusted or able if one.key not in busy), None)

    def machines(self, target: str | None = None) -> list[Machine]:
        """Those that are alive, and have the `target`; such as have fewest targets first."""
        import ray

        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        found = [_machine(node) for node in nodes if node["Alive"]]
        able = [one for one in found if one.cpus and (target is None or target in one.targets)]
        return sorted(able, key=lambda one: (len(one.targets), one.name, one.key))

    def start(self, machine: Machine, target: str | None, call: Callable[..., T], *arguments: object) -> Any:  # noqa: ANN401 - Ray's
        """Begin `call(*arguments)` on all CPUs of the machine, in a process of its own; a name for it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(machine.key, soft=False)
        asked = {"num_cpus": machine.cpus, "max_retries": 0, "scheduling_strategy": there}
        remote: Any = ray.remote(max_calls=1)(_done)
        began = remote.options(**asked, resources={target: 1} if target else {}).remote(_here(), call, arguments)
        self.under_way[began] = machine
        return began

    def wait(self) -> tuple[Any, Ended[Any]]:
        """The next call that ends, by its name. What it raised is its result where convkit raises it; else it is a bug
        and raised here, with the traceback of there.
        """
        import ray

        failed = ray.exceptions
        lost = failed.WorkerCrashedError, failed.NodeDiedError, failed.OutOfMemoryError, failed.TaskUnschedulableError
        (began, *_), _ = ray.wait(list(self.under_way), num_returns=1)
        machine = self.under_way.pop(began)
        try:
            return began, Ended(machine, ray.get(began))
        except lost:
            self.doubtful.add(machine.key)
            return began, Ended(machine, lost=True)


@contextlib.contextmanager
def joined(address: str, targets: Sequence[str]) -> Iterator[Cluster]:
    """The cluster whose head is at `address`; `auto`: the one that this machine is in; `local`: this machine, which has
    all `targets`.

    Raises NotAvailableError where Ray is missing, nobody answers, or no machine has one of the targets.
    """
    try:
        import ray
    except ImportError as error:
        raise NotAvailableError("Ray is not installed", hint="pip install 'convkit[ray]'") from error
    if address == LOCAL:
        where: dict[str, Any] = {"resources": dict.fromkeys(targets, 1), "include_dashboard": False}
    else:
        where = {"address": address}
    if address not in (LOCAL, AUTO):
        _answers(address)
    try:
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _nobody(address) from error
    try:
        cluster = Cluster(sys.stdout)
        for target in targets:
            if not cluster.machines(target):
                raise NotAvailableError(
                    f"no machine of the Ray cluster has the target {target}",
                    hint=f"""on one that has it: ray start --address=HEAD:6379 --resources='{{"{target}": 1}}'""",
                )
        with contextlib.redirect_stdout(sys.stderr):
            yield cluster
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Ray itself would wait for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _nobody(address) from error


def _nobody(address: str) -> NotAvailableError:
    return NotAvailableError(f"no head of a Ray cluster answers at {address}", hint="start one: ray start --head")


def _machine(node: Mapping[str, Any]) -> Machine:
    known = node["Resources"]
    usual = ("CPU", "GPU", "memory", "object_store_memory")
    targets = frozenset(name for name in known if name not in usual and not name.startswith(("node:", "accelerator_")))
    return Machine(node["NodeID"], node["NodeManagerHostname"], known.get("CPU", 0.0), targets)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a call finds as it is here: the folder, where modules are, threads, and convkit's own code."""

    folder: str
    paths: tuple[str, ...]
    threads: Mapping[str, str]
    code: str


def _here() -> _Place:
    from convkit.cli import journal

    threads = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return _Place(os.getcwd(), tuple(sys.path), threads, journal.code())  # noqa: PTH109 - a word


def _done(place: _Place, call: Callable[..., T], arguments: Sequence[object]) -> T | ConvkitError:
    """`call` on a machine of the cluster; torch is not imported yet, and counts its threads when it is."""
    try:
        _settle(place)
        return call(*arguments)
    except ConvkitError as error:
        return error


def _settle(place: _Place) -> None:
    from convkit.cli import journal

    machine = socket.gethostname()
    if journal.code() != place.code:
        raise ConvkitError(f"{machine} has another convkit than this machine", hint="install the same on all")
    for name in _THREADS:
        os.environ.pop(name, None)
    os.environ.update(place.threads)
    try:
        os.chdir(place.folder)
    except OSError as error:
        hint = "machines of a cluster share a file system"
        raise ConvkitError(f"{machine} does not see {place.folder}", hint=hint) from error
    sys.path[:] = [*sys.path, *(path for path in place.paths if path not in sys.path)]
