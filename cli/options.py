"""The options that commands share, and the values made of them: one spelling, one meaning everywhere.

A decorator adds its options to a command; `model` hands the command a ModelRef, `data` a DataRef (or None), the others
a plain value named like the option (`as_json` for --json).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from convkit.compress import package, parts
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Dim, ModelRef

COMMAND_LINE = "convkit.command_line"
"""Where click's context keeps the words that were typed."""

Function = Callable[..., Any]
Shape = tuple[tuple[Dim, ...], tuple[int, ...]]

_SHAPE = re.compile(r"(?P<name>.+):(?P<dims>[^:]+)")
_DIM = re.compile(r"(?P<size>\d+)|(?P<symbol>[A-Za-z_]\w*?)(=(?P<sample>\d+))?")


def model(function: Function) -> Function:
    """-m/--model with --weights, --arg and --shape; the command gets `model: ModelRef`."""

    @functools.wraps(function)
    def with_model(
        *, model_path: str, weights: str | None, args: tuple[str, ...], shapes: tuple[str, ...], **others: object
    ) -> object:
        return function(model=model_ref(model_path, weights, args, shapes), **others)

    for decorate in (_SHAPES, _ARGS, _WEIGHTS, _MODEL):
        decorate(with_model)
    return with_model


_MODEL = click.option(
    "-m",
    "--model",
    "model_path",
    required=True,
    metavar="FILE|MODULE:FUNCTION",
    help="A .onnx or .pt2 file, or the function that builds the network (pkg://package/file reads inside a package).",
)
_WEIGHTS = click.option("--weights", metavar="FILE", help="Weights for MODULE:FUNCTION: .safetensors or a state dict.")
_ARGS = click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="An argument for MODULE:FUNCTION.")
_SHAPES = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT:SHAPE",
    help="An input's shape: x:1x3x224x224, or with free sizes x:Nx3xH=224xW=224.",
)


def model_ref(path: str, weights: str | None = None, args: Iterable[str] = (), shapes: Iterable[str] = ()) -> ModelRef:
    """The ModelRef that the words of a command line mean."""
    files = package.resolve(path), package.resolve(weights) if weights else None
    return ModelRef(*files, assignments(args), dict(map(parse_shape, shapes)))


def assignments(words: Iterable[str]) -> dict[str, Any]:
    """`name=value` words as a mapping; values are read as YAML, so 3 is a number and [1, 2] a list."""
    import yaml

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ConvkitError(f"argument {word!r} is no NAME=VALUE", hint="such as --arg num_classes=10")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConvkitError(f"the value of argument {word!r} is no YAML", hint="quote it") from error
    return found


def parse_shape(text: str) -> tuple[str, Shape]:
    """`x:Nx3xH=224xW=224` as ("x", (("N", 3, "H", "W"), (1, 3, 224, 224))): the input's name, shape and sample.

    A free dimension's sample is 1 unless it is given; sizes are positive.
    """
    match = _SHAPE.fullmatch(text)
    dims = [_DIM.fullmatch(word) for word in match["dims"].split("x")] if match else [None]
    if match is None or not all(dims) or any(size == 0 for _, size in map(_dim, filter(None, dims))):
        raise ConvkitError(f"shape {text!r} is not INPUT:SHAPE", hint="such as x:1x3x224x224, or x:Nx3xH=224xW=224")
    pairs = [_dim(dim) for dim in dims if dim]
    return match["name"], (tuple(dim for dim, _ in pairs), tuple(size for _, size in pairs))


def _dim(match: re.Match[str]) -> tuple[Dim, int]:
    if match["size"]:
        return int(match["size"]), int(match["size"])
    return match["symbol"], int(match["sample"] or 1)


class Part(click.ParamType[str]):
    """A part's name, with the shell's completion from its folder. The command itself loads the part."""

    name = "name"

    def __init__(self, folder: str, suffix: str = ".py") -> None:
        self._folder, self._suffix = folder, suffix

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names in the folder that begin with what was typed."""
        known = parts.names(self._folder, self._suffix)
        return [
            CompletionItem(name, help=parts.about(self._folder, name, self._suffix))
            for name in known
            if name.startswith(incomplete)
        ]


target = click.option(
    "--target", type=Part("recipes/targets", ".yaml"), metavar="NAME|FILE", help="See `convkit list targets`."
)
output = click.option(
    "-o", "--output", required=True, metavar="FOLDER", help="Where the result goes, whole or not at all."
)
json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
threads = click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of the engine.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
resume = click.option("--resume", is_flag=True, help="Go on after an interruption; finished steps are kept.")


def command_line() -> list[str]:
    """The command as it was typed, without the output folder: what a manifest records."""
    typed: list[str] = ["convkit", *click.get_current_context().meta[COMMAND_LINE]]
    kept: list[str] = []
    words = iter(typed)
    for word in words:
        if word in {"-o", "--output"}:
            next(words, None)
        elif not word.startswith(("--output=", "-o=")):
            kept.append(word)
    return kept
