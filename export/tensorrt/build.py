"""An ONNX file built into an engine, in a process of its own: what crashes the builder is one clear error."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.export import kernel, kernels
from convkit.export.tensorrt import child, dump, kernel_plugin, package, plugin, precision
from convkit.export.tensorrt.dump import EngineLayer
from convkit.export.tensorrt.request import Profile, Settings

if TYPE_CHECKING:
    import onnx

TIMEOUT = 1800.0
"""Seconds after which a builder that does not end counts as hanging."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, the layers that it is made of, and what its builder warned of."""

    engine: bytes
    layers: Sequence[EngineLayer]
    version: str
    seconds: float
    warnings: Sequence[str]


def build(name: str, model: Path, settings: Settings, timeout: float = TIMEOUT) -> Built:
    """The engine that the package `name` makes of the file `model`.

    Raises ConvkitError for what it does not build, with the node where the parser names one, for a package that
    crashes or hangs, for shapes that `settings` lack, and for plugins that fail; NotAvailableError where the package is
    missing.
    """
    import onnx

    package.version(name)
    package.check_cache(name, settings.cache)
    package.check_compatible(name, hardware=settings.hardware_compatible, later=settings.version_compatible)
    package.check_gpu(name)
    proto = onnx.load(model)
    package.check_sm(name, settings.sm, fp8=any(f == "fp8_e4m3" for _, f in precision.planned(proto).values()))
    settings = dataclasses.replace(settings, profile=_shapes(proto, settings.profile))
    used = kernels.used(proto)
    for own in used:
        kernel.load(own)  # says what is missing before anything is built
    with tempfile.TemporaryDirectory(prefix="convkit-") as scratch:
        folder = Path(scratch)
        asked: dict[str, Any] = {"package": name, "model": str(model.absolute()), "kernels": used}
        asked["settings"] = dataclasses.asdict(settings)
        record.write_json(folder / child.REQUEST, asked)
        found = _run(name, folder, settings.plugins, timeout, kernels=bool(used))
        if found["wrong"]:
            raise ConvkitError(*found["wrong"])
        if found["errors"]:
            raise _refused(name, model, found["errors"][0])
        if settings.cache:
            record.write_bytes(settings.cache, (folder / child.CACHE).read_bytes())
        engine = (folder / child.ENGINE).read_bytes()
    warnings = [text for level, text in found["said"] if level == "WARNING" and kernel_plugin.NO_STATE not in text]
    return Built(engine, dump.layers(found["log"]), found["version"], found["seconds"], warnings)


def _shapes(model: onnx.ModelProto, asked: Profile) -> Profile:
    """`asked`, with sizes of one symbol alike and the usual batch; raises ConvkitError where that leaves sizes open."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in held}
    for name in asked.inputs:
        if name not in inputs:
            raise ConvkitError(f"no input is called {name!r}", hint=f"the network has {', '.join(inputs)}")
        for shapes in (asked.least, asked.usual, asked.most):
            _check_shape(name, shapes.get(name), _sizes(inputs[name]))
    left = {name: value for name, value in inputs.items() if name not in asked.inputs and None in _sizes(value)}
    least, usual, most = (
        _filled(inputs, left, shapes, asked.batch) for shapes in (asked.least, asked.usual, asked.most)
    )
    return Profile(least, usual, most, asked.batch)


def _filled(
    inputs: Mapping[str, onnx.ValueInfoProto],
    left: Mapping[str, onnx.ValueInfoProto],
    given: Mapping[str, tuple[int, ...]],
    batch: int,
) -> dict[str, tuple[int, ...]]:
    """`given`, and shapes of what is `left`: a symbol's size is that which it has in `given`."""
    known = {
        symbol: size
        for name, shape in given.items()
        for symbol, size in zip(_symbols(inputs[name]), shape, strict=True)
        if symbol
    }
    found = dict(given)
    for name, value in left.items():
        sizes = [size or known.get(symbol) for size, symbol in zip(_sizes(value), _symbols(value), strict=True)]
        if None in sizes[1:]:
            text = "x".join("?" if size is None else str(size) for size in sizes)
            raise ConvkitError(
                f"input {name!r} is {text}: its sizes are free", hint=f"give --opt-shapes {name}:1x3x224x224"
            )
        found[name] = tuple(size or batch for size in sizes)
    return found


def _check_shape(name: str, given: Sequence[int] | None, sizes: Sequence[int | None]) -> None:
    fits = given is None or (
        len(given) == len(sizes) and all(size in (None, own) for own, size in zip(given, sizes, strict=True))
    )
    if not fits:
        text = "x".join("?" if size is None else str(size) for size in sizes)
        asked = "x".join(map(str, given or ()))
        raise ConvkitError(f"input {name!r} is {text} in the file, not {asked}", hint="give sizes to free ones alone")


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """None where a size is free; some files write that as a number that is no size."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _symbols(value: onnx.ValueInfoProto) -> list[str]:
    """The names of free sizes; "" where there is none."""
    return [dim.dim_param for dim in value.type.tensor_type.shape.dim]


def _run(name: str, folder: Path, plugins: Sequence[str], timeout: float, *, kernels: bool) -> dict[str, Any]:
    """What the child found. The parser opens its library by a name that the package may lack: a link stands for it."""
    known = package.PACKAGES[name]
    library = package.library(name)
    if library is not None:
        (folder / f"{known.library}.so").symlink_to(library)
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-P", "-m", "convkit.export.tensorrt.child", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and a module of ours
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # libraries of others print what they like
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConvkitError(
            f"{known.about} did not end within {timeout:g} s",
            hint="give a lower --builder-level, or try a smaller network",
        ) from error
    failed = plugin.raised(done.stderr, plugins, kernels=kernels)
    if failed is not None:  # first of all: what else went wrong may come of it
        raise failed
    if not (folder / child.RESULT).is_file():
        raise _crashed(known.about, done, plugins)
    found: dict[str, Any] = json.loads((folder / child.RESULT).read_text())
    return found


def _crashed(about: str, done: subprocess.CompletedProcess[str], plugins: Sequence[str]) -> ConvkitError:
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    last = done.stderr.strip().splitlines()[-1:]
    words = f": {last[0][:300]}" if last else ""
    names = ", ".join(Path(file).name for file in plugins)
    own = f", unless it was {names}, which ran in it" if plugins else ""
    hint = f"`convkit lint` names what it cannot take{own}"
    return ConvkitError(f"the builder of {about} crashed ({how}){words}", hint=hint)


def _refused(name: str, model: Path, error: dict[str, str]) -> ConvkitError:
    where = f" at {error['operator']} {error['node']!r}" if error["node"] else ""
    hint = error.get("hint") or "leave that operator out, or give a plugin that has it (--plugin)"
    words = error["words"].strip()[:400]
    if "Plugin not found" in words:
        words, hint = "there is no such operator, and no plugin of its name, version and namespace", plugin.GIVE
    return ConvkitError(f"{package.PACKAGES[name].about} refuses {model.name}{where}: {words}", hint=hint)
