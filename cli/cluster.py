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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from convkit.cli import interrupt
from convkit.compress import code
from convkit.compress.errors import ConvkitError, NotAvailableError

LOCAL, AUTO = "local", "auto"
_PATIENCE, _TRIES = 5.0, 3
"""Seconds in which a head is to answer, and how often it is asked when it was there before."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Ray sets them for its workers; a step computes with as many threads as it would alone."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the cluster: its `targets` are what its resources name beside CPUs, GPUs and memory."""

    key: str
    name: str
    cpus: float
    gpus: float
    targets: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """What came of a call on a `machine`: its result, an error of convkit or a bug that it raised, or why it was `lost`
    where the worker or the machine ended before it.
    """

    machine: Machine
    result: T | Exception | None = None
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `joined` gives: `out` for what is to be on standard output, where Ray itself prints else; calls under way,
    by what Ray knows them by; and machines on which some were lost.
    """

    out: TextIO
    head: str
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
        """Begin `call(*arguments)` on all CPUs and GPUs of the machine, in a process of its own; a name for it."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(machine.key, soft=False)
        asked = {"num_cpus": machine.cpus, "num_gpus": machine.gpus, "max_retries": 0, "scheduling_strategy": there}
        remote: Any = ray.remote(max_calls=1)(_done)
        began = remote.options(**asked, resources={target: 1} if target else {}).remote(_here(), call, arguments)
        self.under_way[began] = machine
        return began

    def wait(self) -> tuple[Any, Ended[Any]]:
        """The next call that ends, by its name. Raises NotAvailableError where the head ends before."""
        import ray

        ended: list[Any] = []
        while not ended:
            ended, _ = ray.wait(list(self.under_way), num_returns=1, timeout=_PATIENCE)
            if not ended:
                _stays(self.head)
        (began,) = ended
        machine = self.under_way.pop(began)
        try:
            found = Ended(machine, ray.get(began))
        except ray.exceptions.RayTaskError as bug:
            found = Ended(machine, bug)
        except ray.exceptions.RayError as error:
            self.doubtful.add(machine.key)
            return began, Ended(machine, lost=_first_line(error))
        self.doubtful.discard(machine.key)
        return began, found


@contextlib.contextmanager
def joined(address: str, targets: Sequence[str]) -> Iterator[Cluster]:
    """The cluster whose head is at `address`, which this machine has joined; `auto`: whichever that is; `local`: one of
    this machine alone, which has all `targets`.

    Raises NotAvailableError where Ray is missing, nobody answers, or no machine has one of the targets.
    """
    try:
        import ray
    except ImportError as error:
        raise NotAvailableError("Ray is not installed", hint="pip install 'convkit[ray]'") from error
    if address == LOCAL:
        where: dict[str, Any] = {"resources": dict.fromkeys(targets, 1), "include_dashboard": False}
    else:
        where = {}
    if address not in (LOCAL, AUTO) and not _answers(address):
        raise NotAvailableError(f"no head of a Ray cluster answers at {address}", hint="start one: ray start --head")
    try:
        ray.init(address=address, **where, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise NotAvailableError(
            f"cannot join a Ray cluster ({address}): {_first_line(error)}",
            hint="this machine joins it first: ray start --address=HEAD:PORT, with the same Ray, Python and token",
        ) from error
    finally:
        interrupt.install()  # Ray takes SIGTERM for itself
    try:
        cluster = Cluster(sys.stdout, ray.get_runtime_context().gcs_address)
        for target in targets:
            if not cluster.machines(target):
                raise NotAvailableError(
                    f"no machine of the Ray cluster has the target {target}",
                    hint=f"""on one that has it: ray start --address=HEAD:6379 --resources='{{"{target}": 1}}'""",
                )
        # What is lost is said here, in a line.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield cluster
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    """Whether anybody does: Ray itself would wait for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def _stays(head: str) -> None:
    """Raises NotAvailableError where the head is gone; Ray would end the process without a word."""
    for _ in range(_TRIES):
        if _answers(head):
            return
        time.sleep(1)
    raise NotAvailableError(f"the head of the Ray cluster at {head} is lost", hint="start it, and go on with --resume")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _machine(node: Mapping[str, Any]) -> Machine:
    known = node["Resources"]
    usual = ("CPU", "GPU", "memory", "object_store_memory")
    targets = frozenset(name for name in known if name not in usual and not name.startswith(("node:", "accelerator_")))
    cpus, gpus = (known.get(name, 0.0) for name in ("CPU", "GPU"))
    return Machine(node["NodeID"], node["NodeManagerHostname"], cpus, gpus, targets)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a call finds as it is here: the folder, where modules are, threads, and convkit's own code."""

    folder: str
    paths: tuple[str, ...]
    threads: Mapping[str, str]
    code: str


def _here() -> _Place:
    threads = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return _Place(os.getcwd(), tuple(sys.path), threads, code.digest())  # noqa: PTH109 - a word


def _done(place: _Place, call: Callable[..., T], arguments: Sequence[object]) -> T | ConvkitError:
    """`call` on a machine of the cluster; torch is not imported yet, and counts its threads when it is.

    What convkit raises is given back; what else is raised comes with its traceback.
    """
    try:
        _settle(place)
        return call(*arguments)
    except ConvkitError as error:
        return error


def _settle(place: _Place) -> None:
    machine = socket.gethostname()
    if code.digest() != place.code:
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
