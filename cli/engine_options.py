"""The options of commands that build an engine, and the Settings made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import values
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.export.exporter import Exporter
    from convkit.export.tensorrt.request import Settings

Function = Callable[..., Any]


def engine(function: Function) -> Function:
    """--sm and all that a build takes; the command gets `asked`, the words, for `settings`."""

    @functools.wraps(function)
    def with_engine(**words: object) -> object:
        asked = {name: words.pop(name) for name in NAMES}
        return function(asked=asked, **words)

    for decorate in reversed(_OPTIONS):
        decorate(with_engine)
    return with_engine


def settings(asked: dict[str, Any], writer: Exporter, target: str) -> Settings | None:
    """What is asked of the build; None where `writer` builds nothing, or is not to. Raises ConvkitError."""
    given = [name for name, value in asked.items() if value is not None and value is not False and value != ()]
    if writer.builds is None:
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ConvkitError(f"{flag} concerns engines that are built; {target} builds none", hint="--target trt-rtx")
        return None
    if asked["no_build"]:
        return None
    from convkit.export.tensorrt import package
    from convkit.export.tensorrt.request import Settings, profile

    found = Settings(
        sm=asked["sm"],
        profile=profile(asked["min_shapes"], asked["opt_shapes"], asked["max_shapes"]),
        workspace=asked["workspace"],
        version_compatible=asked["version_compatible"],
        hardware_compatible=asked["hardware_compatible"],
        cache=asked["timing_cache"],
        plugins=tuple(plugin(path) for path in asked["plugin"]),
        level=asked["builder_level"],
    )
    package.version(writer.builds)
    package.check_sm(writer.builds, found.sm, fp8=False)
    package.check_cache(writer.builds, found.cache)
    package.check_compatible(writer.builds, hardware=found.hardware_compatible, later=found.version_compatible)
    package.check_gpu(writer.builds)
    return found


def check_cache(settings: Settings | None, output: str) -> None:
    """Raise ConvkitError for a timing cache that could not be written behind the build, or would go with what was in
    the output folder before."""
    if settings is None or settings.cache is None:
        return
    file, own = Path(settings.cache).resolve(), record.final_place(output).resolve()
    if file.is_dir() or not file.parent.is_dir():
        raise ConvkitError(
            f"--timing-cache {settings.cache} is no file in a folder that is there", hint="make it first"
        )
    if own in (file, *file.parents):
        raise ConvkitError(f"--timing-cache {settings.cache} is in the output folder", hint="keep it beside that")


def kernels(asked: dict[str, Any]) -> tuple[str, ...]:
    """Names of the kernels that are asked for. Raises ConvkitError for one that there is not."""
    from convkit.export import kernel
    from convkit.export.kernels import ALL

    for name in asked["kernel"]:
        if name != ALL:
            kernel.load(name)
    return tuple(asked["kernel"])


def plugin(path: str) -> str:
    """Where the file is; raises ConvkitError where there is none."""
    if not Path(path).is_file():
        raise ConvkitError(f"there is no plugin {path}", hint="give the .so or .py that registers your layers")
    return str(Path(path).absolute())


_OPTIONS = (
    click.option("--sm", type=int, metavar="SM", help="Compute capability to build for: 89 is 8.9."),
    click.option("--min-shapes", metavar="INPUT:SHAPE,…", help="Least sizes of inputs with free ones."),
    click.option(
        "--opt-shapes",
        metavar="INPUT:SHAPE,…",
        help="Those the engine is made fast for, alone the only ones: input:1x3x224x224.",
    ),
    click.option("--max-shapes", metavar="INPUT:SHAPE,…", help="The largest."),
    click.option(
        "--workspace", type=values.Size(), metavar="SIZE", help="What kernels may take beside their tensors: 512MiB."
    ),
    click.option("--version-compatible", is_flag=True, help="Later versions of the package may run the engine."),
    click.option("--hardware-compatible", is_flag=True, help="GPUs of other compute capabilities may run it."),
    click.option("--timing-cache", metavar="FILE", help="Times of kernels, read where there are any, and written."),
    click.option(
        "--plugin",
        multiple=True,
        metavar="FILE.so|FILE.py",
        help="Layers of your own. Of Python, register(trt) is called to build the engine. Whoever runs it must load a "
        "library, or call that, too; an engine of --version-compatible holds its libraries.",
    ),
    click.option(
        "--kernel",
        multiple=True,
        metavar="NAME|all",
        help="Have one of convkit's own kernels, of `convkit list kernels`, compute what it finds; whoever runs the "
        "engine needs convkit.",
    ),
    click.option("--builder-level", type=click.IntRange(0, 5), help="How long the builder searches."),
    click.option("--no-build", is_flag=True, help="Write the ONNX file alone."),
)
NAMES = (
    "sm",
    "min_shapes",
    "opt_shapes",
    "max_shapes",
    "workspace",
    "version_compatible",
    "hardware_compatible",
    "timing_cache",
    "plugin",
    "kernel",
    "builder_level",
    "no_build",
)
