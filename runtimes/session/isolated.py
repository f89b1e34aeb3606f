"""A Session in a process of its own: what kills the engine is reported as one clear error."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Self

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, NotAvailableError, VerdictError
from convkit.compress.model import TensorSpec
from convkit.runtimes.session import NodeTime, Options

if TYPE_CHECKING:
    import numpy as np

TIMEOUT, BUILD_TIMEOUT = 600.0, 2400.0
"""Seconds after which an engine that does not answer counts as hanging, and one that builds what it opens."""


class EngineProcess:
    """The process, and the messages to it. `name` is how errors call it ("onnxruntime on net.onnx")."""

    def __init__(self, name: str, timeout: float = TIMEOUT) -> None:
        self.name, self._timeout = name, timeout
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "convkit.runtimes.session.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # what it starts itself, a builder say, ends with it
            # The child must find the modules that this process finds, the user's own factories among them.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, do: str, fields: Mapping[str, Any] | None = None, arrays: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send one message, wait for its reply; raises what the other side raised."""
        from convkit.runtimes.session import wire

        assert self._process.stdin is not None  # noqa: S101 - opened with a pipe
        assert self._process.stdout is not None  # noqa: S101 - opened with a pipe
        try:
            wire.send(self._process.stdin, {"do": do, **(fields or {})}, arrays)
            self._wait(self._process.stdout)
            reply, results = wire.receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise self._died() from error
        _raise_error(reply)
        return reply, results

    def close(self) -> None:
        """End the process; it is asleep on its pipe, or gone already."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._log.close()

    def _wait(self, stream: IO[bytes]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if selector.select(self._timeout):
                return
        self._kill()
        raise ConvkitError(f"{self.name} did not answer for {self._timeout:g} s", hint="try a smaller model or input")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _died(self) -> ConvkitError:
        code = self._process.wait()
        how = _signal_name(-code) if code < 0 else f"exit code {code}"
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        words = f": {last[0][:300]}" if last else ""
        return ConvkitError(f"{self.name} crashed ({how}){words}", hint="the engine itself failed, not convkit")


class IsolatedSession:
    """A Session whose engine runs in an EngineProcess."""

    def __init__(self, engine: str, path: str, options: Options | None = None, timeout: float = TIMEOUT) -> None:
        builds = parts.load("runtimes", engine).builds
        self.process = EngineProcess(f"{engine} on {path}", max(timeout, BUILD_TIMEOUT) if builds else timeout)
        try:
            fields = {"engine": engine, "path": path, "options": dataclasses.asdict(options or Options())}
            reply, _ = self.process.ask("open", fields)
        except BaseException:
            self.process.close()
            raise
        self.load_seconds: float = reply["seconds"]
        self.inputs = tuple(_spec(fields) for fields in reply["inputs"])
        self.outputs = tuple(_spec(fields) for fields in reply["outputs"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        names = None if outputs is None else list(outputs)
        return self.process.ask("run", {"outputs": names}, inputs)[1]

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        reply, _ = self.process.ask("profile", {"repeats": repeats}, inputs)
        return [_node(fields) for fields in reply["nodes"]]

    def close(self) -> None:
        self.process.close()


def _node(fields: Mapping[str, Any]) -> NodeTime:
    return NodeTime(**{**fields, "origins": tuple(fields["origins"])})


def _spec(fields: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(fields["name"], tuple(fields["shape"]), fields["dtype"], tuple(fields["sample"]))


def _raise_error(reply: Mapping[str, Any]) -> None:
    if "bug" in reply:
        raise RuntimeError(reply["bug"])
    if "error" in reply:
        message, hint, exit_code = reply["error"]
        kinds = {kind.exit_code: kind for kind in (ConvkitError, NotAvailableError, VerdictError)}
        raise kinds[exit_code](message, hint=hint)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
