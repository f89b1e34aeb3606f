"""The options that commands share, and the values made of them: one spelling, one meaning everywhere.

A decorator adds its options to a command; `model` hands the command a ModelRef, `data` a DataRef (or None), the others
a plain value named like the option (`as_json` for --json).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import show
from convkit.cli.values import SEEDS, THREADS, WORD, Part
from convkit.compress import function as functions
from convkit.compress import package
from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.model import InputShape, ModelRef, parse_shape

if TYPE_CHECKING:
    from convkit.compress.data import DataRef

COMMAND_LINE = "convkit.command_line"
"""Where click's context keeps the words that were typed."""

Function = Callable[..., Any]
Shapes = Mapping[str, InputShape]


def model(function: Function) -> Function:
    """A model, by -m/--model or as the first word, with --weights, --arg and --shape; the command gets
    `model: ModelRef`."""

    @functools.wraps(function)
    def with_model(
        *, model: str, weights: str | None, arg: Mapping[str, Any], shape: Shapes, **others: object
    ) -> object:
        return function(model=model_ref(model, weights, arg, shape), **others)

    for decorate in (_SHAPE_OPTION, _ARG_OPTION, _WEIGHTS_OPTION, _MODEL_OPTION, _MODEL_ARGUMENT):
        decorate(with_model)
    return with_model


def network(function: Function) -> Function:
    """--weights, --arg and --shape for models that are arguments; the command gets `network`: a path as its ModelRef.

    Weights and arguments concern MODULE:FUNCTION alone.
    """

    @functools.wraps(function)
    def with_network(*, weights: str | None, arg: Mapping[str, Any], shape: Shapes, **others: object) -> object:
        def ref(path: str) -> ModelRef:
            if not functions.names_one(path):
                return model_ref(path, None, {}, shape)
            return model_ref(path, weights, arg, shape)

        return function(network=ref, **others)

    for decorate in (_SHAPE_OPTION, _ARG_OPTION, _WEIGHTS_OPTION):
        decorate(with_network)
    return with_network


def model_ref(path: str, weights: str | None, arg: Mapping[str, Any], shape: Shapes) -> ModelRef:
    """The ModelRef that the words of --model, --weights, --arg and --shape mean."""
    return ModelRef(_located(path), package.resolve(weights) if weights else None, arg, shape)


def _located(path: str) -> str:
    """The place of a file inside a package; a Python file in place of its module gets the spelling that is meant."""
    code = _CODE.fullmatch(path)
    if code is None:
        return package.resolve(path)
    folder, module, name = Path(code["folder"] or "."), code["module"], code["name"] or "FUNCTION"
    inside = not folder.is_absolute() and ".." not in folder.parts
    hint = f"give {'.'.join([*folder.parts, module])}:{name}" if inside else f"run in {folder} and give {module}:{name}"
    raise ConvkitError(f"{path!r} names a file of code, not a module and its function", hint=hint)


_CODE = re.compile(r"(?P<folder>.*/)?(?P<module>\w+)\.py(:(?P<name>[\w.]*))?")


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
        except (yaml.YAMLError, ValueError) as error:  # a date that there is not
            raise ConvkitError(f"the value of argument {word!r} is no YAML", hint="quote it") from error
    return found


def _first_word(context: click.Context, _argument: click.Parameter, value: str | None) -> None:
    context.meta[_FIRST_WORD] = value


def _either(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    word = context.meta.get(_FIRST_WORD)
    if value and word:
        raise click.UsageError(f"the model is given twice: {word} and --model {value}", context)
    if not value and not word and not context.resilient_parsing:
        raise click.MissingParameter(ctx=context, param=option)
    return value or word


_FIRST_WORD = "convkit.first_word"
# It has no value of its own, so a recipe knows one key, `model`; it is read first, so that the option sees it.
_MODEL_ARGUMENT = click.argument(
    "word", required=False, metavar="[MODEL]", expose_value=False, is_eager=True, callback=_first_word
)
_MODEL_OPTION = click.option(
    "-m",
    "--model",
    callback=_either,
    metavar="FILE|MODULE:FUNCTION",
    help="A .onnx or .pt2 file, or the function that builds the network (pkg://package/file reads inside a package). "
    "MODEL without -m is the same.",
)
_WEIGHTS_OPTION = click.option(
    "--weights", type=WORD, metavar="FILE", help="Weights for MODULE:FUNCTION: .safetensors or a state dict."
)
_ARG_OPTION = click.option(
    "--arg",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _context, _option, values: assignments(values),
    help="An argument for MODULE:FUNCTION.",
)
_SHAPE_OPTION = click.option(
    "--shape",
    multiple=True,
    metavar="INPUT:SHAPE",
    callback=lambda _context, _option, values: dict(map(parse_shape, values)),
    help="An input's shape: x:1x3x224x224; with free sizes: x:Nx3xH=224xW=224; not of float32: ids:int64:Nx16.",
)


class DataSet(click.ParamType["DataRef"]):
    """A DataRef: a path, MODULE:FUNCTION, or its fields as YAML ({path: …, preprocess: {…}}), in place or in a file."""

    name = "data"

    def convert(self, value: str | DataRef, param: click.Parameter | None, ctx: click.Context | None) -> DataRef:
        """The DataRef that a word means; raises ConvkitError for an unknown key."""
        from convkit.compress.data import DataRef

        if isinstance(value, DataRef):
            return value
        WORD.convert(value, param, ctx)
        if value.lstrip().startswith("{") or value.endswith((".yaml", ".yml")):
            return data_ref(mapping(value))
        return DataRef(value)


def data_ref(text: Mapping[str, Any]) -> DataRef:
    """The DataRef that a mapping with its fields describes."""
    from convkit.compress import preprocess
    from convkit.compress.data import DataRef

    known = [field.name for field in dataclasses.fields(DataRef)]
    for key in [*text, *(["path"] if "path" not in text else [])]:
        if key not in known or key not in text:
            every = f"give {', '.join(known)}"
            hint = every if key in known else nearest(key, known, every)
            raise ConvkitError(f"data has no {key!r}", hint=hint)
    for key, value in text.items():
        if not isinstance(value, _DATA_TYPES[key]):
            raise ConvkitError(f"data.{key} is {value!r}", hint=f"give {_DATA_TYPES[key].__name__}")
    fields = dict(text)
    if "preprocess" in fields:
        fields["preprocess"] = preprocess.from_mapping(fields["preprocess"])
    return DataRef(**fields)


DATA_FIELDS = ("labels", "pattern", "preprocess", "limit")
_DATA_TYPES = {"path": str, "preprocess": dict, "labels": str, "pattern": str, "args": dict, "limit": int}


def mapping(text: str) -> dict[str, Any]:
    """YAML that holds keys and values, each key once: the text itself, or the file of that name."""
    from convkit.compress import schema

    what, hint = "mapping", "give {key: value, …} or a .yaml file"
    return (
        schema.read(text, what, hint)
        if text.endswith((".yaml", ".yml"))
        else schema.loads(text, repr(text), what, hint)
    )


def data(*, required: bool = False, what: str = "Samples") -> Callable[[Function], Function]:
    """--data with --labels, --pattern, --preprocess and --limit; the command gets `data: DataRef | None`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_data(*, data: DataRef | None, **options: Any) -> object:  # noqa: ANN401 - click's values
            refined = refine(data, {name: options.pop(name) for name in DATA_FIELDS})
            result = function(data=refined, **options)
            if refined is not None:
                _say_how_images_were_prepared(refined)
            return result

        for option in _DATA_OPTIONS:
            option(with_data)
        help_text = f"{what}: a folder of images, .npz, .npy, MODULE:FUNCTION, or {{path: …, preprocess: …}}."
        return click.option("--data", type=DataSet(), required=required, metavar="PATH", help=help_text)(with_data)

    return decorate


def refine(ref: DataRef | None, changes: Mapping[str, Any]) -> DataRef | None:
    """`ref` with what --labels, --pattern, --preprocess and --limit say."""
    given = {name: value for name, value in changes.items() if value is not None}
    if given and ref is None:
        raise ConvkitError(f"--{next(iter(given))} is given without --data", hint="add --data")
    if "preprocess" in given:
        from convkit.compress import preprocess

        given["preprocess"] = preprocess.from_mapping(mapping(given["preprocess"]))
    if ref is None:
        return None
    _located(ref.path)
    return dataclasses.replace(ref, **given)


def _say_how_images_were_prepared(ref: DataRef) -> None:
    """Nothing is assumed in silence: wrong means and deviations look like a network that is just not very good."""
    from convkit.compress.preprocess import Preprocess

    usual = Preprocess()
    if ref.preprocess == usual and Path(package.resolve(ref.path)).is_dir():
        words = ", ".join(f"{key} {value}" for key, value in usual.as_dict().items() if value is not None)
        show.note(f"images of {ref.path} were prepared as is usual for ImageNet ({words}); --preprocess says otherwise")


_DATA_OPTIONS = (
    click.option("--limit", type=click.IntRange(1), help="Use that many samples, evenly spread."),
    click.option(
        "--preprocess", type=WORD, metavar="YAML", help="How images become inputs: {mean: …, std: …} or a .yaml file."
    ),
    click.option(
        "--pattern",
        type=WORD,
        metavar="GLOB",
        help="Which images: imagenet_*_{label}.jpg reads the label from the name.",
    ),
    click.option(
        "--labels",
        type=WORD,
        metavar="FILE",
        help="Labels of the images: .json or .csv of file names and class indices; none: sub-folders are no classes.",
    ),
)


def _target(more: str = "") -> Callable[[Function], Function]:
    words = f"See `convkit list targets`.{more}"
    return click.option("--target", type=Part("recipes/targets", ".yaml"), metavar="NAME|FILE", help=words)


USUAL_TARGET = "onnxruntime-cpu"
target = _target()
usual_target = _target(f"  [default: the plan's, else {USUAL_TARGET}]")
"""Of commands for which `carrying.job` finds it."""
output = click.option(
    "-o", "--output", required=True, type=WORD, metavar="FOLDER", help="Where the result goes, whole or not at all."
)
json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
seed = click.option("--seed", type=SEEDS, default=0, show_default=True, help="Seed of everything random.")
threads = click.option("--threads", type=THREADS, default=2, show_default=True, help="Threads of the engine.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
resume = click.option(
    "--resume", is_flag=True, help="Go on where the same command was interrupted; else it begins anew."
)


def command_line() -> list[str]:
    """The command as it was typed, without the output folder, and whether it went on: what a manifest records."""
    typed: list[str] = ["convkit", *click.get_current_context().meta[COMMAND_LINE]]
    kept: list[str] = []
    words = iter(typed)
    for word in words:
        if word in {"-o", "--output"}:
            next(words, None)
        elif word != "--resume" and not word.startswith(("--output=", "-o")):
            kept.append(word)
    return kept
