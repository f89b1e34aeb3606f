"""The process an engine lives in when its crash must not be ours: answers messages until its pipe closes.

Started by `isolated.py` as `python -m convkit.runtimes.session.host`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import Options, Session, open_session, wire

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass(slots=True)
class _Host:
    """The one session of this process and the inputs it is timed with."""

    session: Session | None = None
    samples: tuple[dict[str, np.ndarray], ...] = ()

    def open(self, fields: Mapping[str, Any], _arrays: wire.Arrays) -> Reply:
        started = time.perf_counter()
        self.session = open_session(fields["engine"], fields["path"], _options(fields["options"]))
        seconds = time.perf_counter() - started
        specs = {
            key: [dataclasses.asdict(spec) for spec in getattr(self.session, key)] for key in ("inputs", "outputs")
        }
        return {"seconds": seconds, **specs}, {}

    def run(self, fields: Mapping[str, Any], arrays: wire.Arrays) -> Reply:
        return {}, self._opened().run(arrays, fields["outputs"])

    def profile(self, fields: Mapping[str, Any], arrays: wire.Arrays) -> Reply:
        nodes = self._opened().profile(arrays, fields["repeats"])
        return {"nodes": [dataclasses.asdict(node) for node in nodes]}, {}

    def prepare(self, _fields: Mapping[str, Any], arrays: wire.Arrays) -> Reply:
        """Keep the inputs for `time`, stacked: [samples, ...] each."""
        count = len(next(iter(arrays.values())))
        self.samples = tuple({name: np.asarray(a[i], order="C") for name, a in arrays.items()} for i in range(count))
        return {}, {}

    def time(self, fields: Mapping[str, Any], _arrays: wire.Arrays) -> Reply:
        from convkit.runtimes.bench import block
        from convkit.runtimes.bench.clock import SystemClock

        timed = block.time_block(self._opened(), self.samples, SystemClock(), block.BlockPlan(**fields["plan"]))
        gpu = timed.gpu and dataclasses.asdict(timed.gpu)
        told = {"warm_up": timed.warm_up, "steady": timed.steady, "gpu": gpu, "others": timed.others}
        return told, {"seconds": timed.seconds}

    def memory(self, _fields: Mapping[str, Any], _arrays: wire.Arrays) -> Reply:
        from convkit.runtimes.bench.machine import peak_memory

        return {"bytes": peak_memory()}, {}

    def _opened(self) -> Session:
        assert self.session is not None  # noqa: S101 - isolated.py opens before anything else
        return self.session


def serve(reader: IO[bytes], writer: IO[bytes]) -> None:
    """Answer every message with its reply or with the error it raised, until the other side is gone."""
    host = _Host()
    while True:
        try:
            fields, arrays = wire.receive(reader)
        except EOFError:
            return
        handler: Callable[..., Reply] = getattr(host, fields["do"])
        try:
            reply, results = handler(fields, arrays)
        except ConvkitError as error:
            reply, results = {"error": [error.message, error.hint, error.exit_code]}, {}
        except Exception:  # noqa: BLE001 - a bug travels to the parent with its traceback
            reply, results = {"bug": traceback.format_exc()}, {}
        wire.send(writer, reply, results)


def _options(fields: Mapping[str, Any]) -> Options:
    shapes = {name: tuple(shape) for name, shape in fields["shapes"].items()}
    return Options(**{**fields, "shapes": shapes})


def main() -> None:
    """Keep the pipe to ourselves: what an engine prints to stdout goes to stderr, and Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(reader, writer)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
