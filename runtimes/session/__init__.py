"""The Session: a model opened by an engine. A Runtime is one engine; a part of `runtimes/`, found by its file."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.session.knobs import Knob

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.model import Model, TensorSpec
    from convkit.runtimes.session.nvml import Reading

OPTIMIZATIONS = ("none", "basic", "extended", "all")
PRECISIONS = ("f32", "tf32", "bf16", "f16")
PARTITIONERS = ("static", "auto")


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine runs a model. An engine ignores the knobs it does not have; `Runtime.knobs` says which it has.

    `spinning`: idle worker threads spin instead of sleeping. `optimization`: how far the engine may rewrite the graph.
    `precision`: what float layers run in. `pinning`: every thread keeps to a core. `hyperthreading`: two threads may
    share one. `partitioner`: how work is shared among threads. `graphs`: a GPU is given all of a
    call at once. `compile`: torch.compile writes the kernels. `channels_last`: tensors keep the channels of a position
    together. `shapes`: concrete input shapes to which free dimensions are fixed, as a deployment would; without them
    the model stays dynamic.
    """

    threads: int = 2
    spinning: bool = True
    optimization: str = "all"
    precision: str = "f32"
    pinning: bool = True
    hyperthreading: bool = False
    partitioner: str = "static"
    graphs: bool = False
    compile: bool = False
    channels_last: bool = False
    plugin: str | None = None
    """A file with layers of the user's own (TensorRT)."""
    weights: str | None = None
    """Weights file of a `package.module:function` model (eager)."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Element types of inputs of a `package.module:function` model that are not its weights' (eager)."""
    batch: int = 1
    """Samples a call where the file leaves that free and no shape says it, for engines that are built for some."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConvkitError(f"threads is {self.threads}", hint="give 1 or more")
        _one_of("optimization", self.optimization, OPTIMIZATIONS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("partitioner", self.partitioner, PARTITIONERS)


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What the engine executed as one node, its seconds per run (median) and the type it computed in.

    `name` and `operator` are the engine's own: after fusion they need not be a layer's. `origins` are names of nodes
    and tensors of the file that it computes, or whose format it only changes; empty where the engine does not tell.
    `quick`: the time that one run in ten stays below, near what nothing disturbs.
    """

    name: str
    operator: str
    seconds: float
    dtype: str
    origins: tuple[str, ...] = ()
    quick: float = 0.0


def node_time(key: tuple[str, str, str], seconds: Sequence[float], origins: tuple[str, ...] = ()) -> NodeTime:
    """The NodeTime of `key` (name, operator, dtype) that took `seconds` in its runs."""
    quick = sorted(seconds)[len(seconds) // 10]
    name, operator, dtype = key
    return NodeTime(name, operator, statistics.median(seconds), dtype, origins, quick)


class Session(Protocol):
    """A model that is loaded and ready to run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes; `sample` is empty where the file does not fix a shape."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives by default."""

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Outputs by name; `outputs` may name any tensor inside the graph.

        Asking for an inner tensor keeps it alive, so the engine may fuse less around it than in a plain run.
        """

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        """Time per executed node, in execution order."""

    def close(self) -> None:
        """Release the model; the session is of no use afterwards."""


@runtime_checkable
class OnDevice(Protocol):
    """What a Session has beside whose engine computes on a device with a clock and memory of its own."""

    def timed(self, inputs: Mapping[str, np.ndarray]) -> float:
        """Seconds of one call by the device's clock; inputs are there beforehand, and outputs stay there."""

    def reading(self) -> Reading | None:
        """The device's clocks and temperature; None where nobody can tell."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One engine. `version` and `open` raise NotAvailableError, with the line that installs it, where it is missing.

    `exact`: its integer arithmetic is that of `compress/integer.py`, code for code. `knobs`: the fields of Options that
    it heeds. `precisions`: those that this device computes float layers in; any other it runs in f32, without a word.
    `builds`: it makes an engine of what it opens, which takes minutes, and of a free batch that of Options. `of_model`:
    opens a network that is read already, where the engine reads files as convkit does.
    """

    version: Callable[[], str]
    open: Callable[[str, Options], Session]
    exact: bool = False
    builds: bool = False
    knobs: tuple[Knob, ...] = ()
    precisions: Callable[[], tuple[str, ...]] = lambda: PRECISIONS[:1]
    of_model: Callable[[Model, Options], Session] | None = None


def open_session(engine: str, path: str, options: Options | None = None) -> Session:
    """`path` opened by the engine called `engine`, in this process."""
    runtime: Runtime = parts.load("runtimes", engine)
    return runtime.open(path, options or Options())


def check_file(path: str) -> None:
    """Raise the user's error for a model file that is missing or empty."""
    file = Path(path)
    if not file.is_file():
        raise ConvkitError(f"{path} is {'a folder' if file.is_dir() else 'not there'}", hint="give a model file")
    if file.stat().st_size == 0:
        raise ConvkitError(f"{path} is empty (0 bytes)", hint="write or download the model again")


def check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, np.ndarray]) -> None:
    """Raise the user's error when names, shapes or types of `inputs` do not fit `specs`."""
    wanted = [spec.name for spec in specs]
    if sorted(inputs) != sorted(wanted):
        raise ConvkitError(f"inputs are named {sorted(inputs)}, the model takes {wanted}", hint="rename the arrays")
    for spec in specs:
        array = inputs[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            not isinstance(want, int) or want == have for want, have in zip(spec.shape, array.shape, strict=False)
        )
        if not fits or array.dtype.name != spec.dtype:
            have = f"{array.dtype.name}{list(array.shape)}"
            shape = ", ".join(map(str, spec.shape))
            raise ConvkitError(f"input {spec.name!r} is {have}, the model takes {spec.dtype}[{shape}]")


def engine_error(engine: str, path: str, error: Exception) -> ConvkitError:
    """The user's error for a model that an engine refuses: its first words that are not a place in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    words = [line for line in lines if line and not _PLACE.match(line)]
    reason = words[0] if words else type(error).__name__
    return ConvkitError(f"{engine} refuses {path}: {reason[:_LONGEST_REASON]}")


_PLACE = re.compile(r"(Exception from|Check '.*' failed at) ")
_LONGEST_REASON = 400


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConvkitError(f"{name} is {value!r}", hint=f"one of: {', '.join(known)}")
