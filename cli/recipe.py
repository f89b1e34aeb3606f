"""The Recipe: a whole run as data. Its steps are commands, its keys are their options, so any command is a step.

    about: one line
    model: net.onnx                        or {path, weights, args, shape}
    data: {calibration: photos/, validation: {path: …, pattern: …}, preprocess: {…}}
    target: onnxruntime-cpu                any option here is meant for every step that has it
    steps:
      - {command: quantize, data: calibration}
      - {command: verify, reference: "${model}", candidate: "${quantize}/model.onnx"}

`${NAME}` is the output folder of an earlier step. Files are looked for beside the recipe. A step with
`each: {seed: [0, 1], rate: [0.1]}` is one for every combination, named NAME-0-0.1 and NAME-1-0.1.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click

from convkit.cli.step import COMMANDS, MEASURES, REFERENCE, Step, of_engine, parameters, parse, words
from convkit.compress import package, parts, schema
from convkit.compress.errors import ConvkitError, nearest

NOT_STEPS = ("run",)
_OWN = ("about", "data", "steps")
_STEP_OWN = ("command", "name")
_MODEL = {"path": "model", "weights": "weights", "args": "arg", "shape": "shape"}
_FILES = ("model", "weights", "data", "reference", "candidate")
_PLACES = (*_FILES, "path", "paths", "validation", "teacher", "tables", "plan", "wheels", "labels")
"""Settings that are files or folders, whatever their names look like; those of `_FILES` must be there."""
_HINT = "give a YAML file, or see `convkit list recipes`"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The steps of one run, checked against the commands they call."""

    name: str
    about: str
    steps: tuple[Step, ...]


def load(name: str) -> Recipe:
    """The recipe in the YAML file `name`, or the one of that name in recipes/. Everything is checked before it returns.

    Raises ConvkitError naming the file, the key and the nearest known one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else parts.path("recipes", name)
    text = _mapping(f"{path}", schema.read(path, "recipe", _HINT))
    _check_shared(path, text)
    steps = text.get("steps")
    if not isinstance(steps, list) or not steps:
        raise ConvkitError(f"{path}: steps is missing", hint="give a list such as [{command: inspect}]")
    shared = _flat(f"{path}", {key: value for key, value in text.items() if key not in _OWN})
    sets = _sets(f"{path}: data", text.get("data") or {})
    made: list[Step] = []
    for index, text_of_step in enumerate(steps):
        where = f"{path}: steps[{index}]"
        for step in _each(where, text_of_step):
            made.append(_step(where, step, shared, sets, [s.name for s in made]))
            _check_files(where, made[-1], path.parent)
            made[-1] = replace(made[-1], settings=cast("Any", _beside(made[-1].settings, path.parent)))
            _check_values(where, made[-1])
            _check_target(where, made[-1])
    _check_taken(path, shared, made)
    return Recipe(path.stem, str(text.get("about", "")), tuple(made))


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConvkitError(f"{where} holds no keys and values", hint="see recipes/lite0.yaml")
    return {key.replace("-", "_"): entry for key, entry in value.items()}


def _flat(where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`model: {path, weights, args, shape}` as the options of the command line."""
    model = settings.get("model")
    if not isinstance(model, dict):
        return dict(settings)
    _check_keys(f"{where}: model", model, _MODEL)
    others = {key: value for key, value in settings.items() if key != "model"}
    return {**others, **{_MODEL[key]: value for key, value in model.items()}}


def _sets(where: str, text: object) -> dict[str, Any]:
    """The data sets by name; a `preprocess` beside them is that of each set without its own."""
    sets = _mapping(where, text)
    shared = {"preprocess": sets.pop("preprocess")} if "preprocess" in sets else {}
    named = {
        name: {"path": ref} if isinstance(ref, str) else _mapping(f"{where}.{name}", ref) for name, ref in sets.items()
    }
    return {name: {**shared, **fields} for name, fields in named.items()}


def _each(where: str, text: object) -> Iterator[object]:
    """The steps that a step is: one for every combination of the values in its `each`, whose names end in them."""
    if not isinstance(text, dict) or "each" not in text:
        yield text
        return
    own = _mapping(where, text)
    each = _mapping(f"{where}.each", own.pop("each"))
    if not each or not all(isinstance(values, list) and values for values in each.values()):
        raise ConvkitError(f"{where}.each holds no lists of values", hint="give such as {seed: [0, 1, 2]}")
    for key in each.keys() & {*own, *_STEP_OWN}:
        raise ConvkitError(f"{where}.each: {key!r} is the step's own", hint="give it once")
    for places in itertools.product(*(range(len(values)) for values in each.values())):
        chosen = {key: each[key][place] for key, place in zip(each, places, strict=True)}
        words = (_short(value, place) for value, place in zip(chosen.values(), places, strict=True))
        yield {**own, "name": "-".join([str(own.get("name", own.get("command"))), *words]), **chosen}


def _short(value: object, place: int) -> str:
    """What the name of a step ends in: the value where that is a short word or number, else its place."""
    return str(value) if re.fullmatch(r"[\w.-]{1,40}", str(value)) else str(place)


def _step(where: str, text: object, shared: Mapping[str, Any], sets: Mapping[str, Any], earlier: Sequence[str]) -> Step:
    own = _mapping(where, {"command": text} if isinstance(text, str) else text)
    if "command" not in own:
        near = difflib.get_close_matches("command", own, n=1)
        raise ConvkitError(
            f"{where} has no command{f', and {near[0]!r} is not known' if near else ''}", hint="give `command: NAME`"
        )
    command = str(own["command"])
    known = [name for name in parts.names(COMMANDS) if name not in NOT_STEPS]
    if command not in known:
        raise _unknown(f"{where}.command", command, known)
    name = str(own.get("name", command))
    if name in earlier or not re.fullmatch(r"\w[\w.-]*", name):
        raise ConvkitError(f"{where}.name {name!r} is taken or no name", hint="give each step a `name:` of its own")
    options = parameters(command)
    given = _flat(where, {key: value for key, value in own.items() if key not in _STEP_OWN})
    _check_keys(where, given, options)
    # The recipe's model goes whole, with its weights and shapes, to the steps that take a model and bring none.
    foreign = set() if "model" in options and "model" not in given else set(_MODEL.values())
    inherited = {key: value for key, value in shared.items() if key in options and key not in foreign}
    settings = {
        key: sets.get(value, value) if _names(value, sets) else value for key, value in {**inherited, **given}.items()
    }
    step = Step(name, command, settings)
    for needed in step.needs() - set(earlier):
        raise _unknown(f"{where}: ${{…}}", needed, earlier)
    return step


def _names(value: object, sets: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and value in sets


def _check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise _unknown(where, key, known)


def _check_shared(path: Path, keys: Iterable[str]) -> None:
    """A mistyped key is named itself, before a step is found to lack what was meant by it."""
    options = {key for name in parts.names(COMMANDS) if name not in NOT_STEPS for key in parameters(name)}
    known = {*_OWN, *_MODEL.values(), *options}
    for key in keys:
        if key not in known:
            hint = nearest(key, sorted(known), "give about, model, data, target, steps or an option")
            raise ConvkitError(f"{_place(path, key)}: {key!r} is not known", hint=hint)


def _check_taken(path: Path, shared: Iterable[str], steps: Iterable[Step]) -> None:
    """What no step takes has no effect, which nobody means."""
    taken = {key for step in steps for key in parameters(step.command)} | {*_MODEL.values()}
    for key in shared:
        if key not in taken:
            raise ConvkitError(f"{_place(path, key)}: no step takes {key!r}", hint="remove it, or add the step")


def _place(path: Path, key: str) -> str:
    """The file, and the line where its key stands."""
    import yaml

    node = yaml.compose(path.read_text(), yaml.SafeLoader)
    entries = node.value if isinstance(node, yaml.MappingNode) else []
    lines = [name.start_mark.line + 1 for name, _ in entries if str(name.value).replace("-", "_") == key]
    return f"{path}, line {lines[0]}" if lines else f"{path}"


def _check_values(where: str, step: Step) -> None:
    """Let the command itself read its options; nothing runs."""
    try:
        parse(step.command, words(step, {name: Path(name) for name in step.needs()}, Path("out")))
    except click.UsageError as error:
        raise ConvkitError(f"{where}: {error.format_message()}", hint=f"see `convkit {step.command} --help`") from error
    except ConvkitError as error:
        raise ConvkitError(f"{where}: {error.message}", hint=error.hint) from error


def _check_target(where: str, step: Step) -> None:
    """Where it is measured on one, there is such a target."""
    target = step.settings.get("target")
    if not isinstance(target, str) or MEASURES not in parameters(step.command) or target.endswith((".yaml", ".yml")):
        return
    try:
        parts.path("recipes/targets", target)
    except ConvkitError as error:
        raise ConvkitError(f"{where}.target: {error.message}", hint=error.hint) from error


def _check_files(where: str, step: Step, folder: Path) -> None:
    """A model or data file that is not there is found before the first step, not after the second."""
    for key in _FILES:
        value = step.settings.get(key)
        file = value.get("path") if isinstance(value, dict) else value
        if not isinstance(file, str) or REFERENCE.search(file) or _FUNCTION.fullmatch(file):
            continue
        if not (folder / package.resolve(file)).exists():
            raise ConvkitError(f"{where}.{key}: there is no {file}", hint=f"files are looked for in {folder.resolve()}")


def _unknown(where: str, key: str, known: Iterable[str]) -> ConvkitError:
    hint = nearest(key, known, f"there is: {', '.join(known) or 'nothing yet'}")
    return ConvkitError(f"{where}: {key!r} is not known", hint=hint)


def _beside(value: object, folder: Path, *, is_file: bool = False) -> object:
    """`value` with every relative file name that stands beside the recipe made absolute: what is meant to be a file,
    and any other word that looks like one."""
    if isinstance(value, dict):
        return {key: _beside(entry, folder, is_file=key in _PLACES) for key, entry in value.items()}
    if isinstance(value, list):
        return [_beside(entry, folder, is_file=is_file) for entry in value]
    if not isinstance(value, str) or value.startswith(("/", package.SCHEME, "${")) or "\0" in value:
        return value
    candidate = of_engine(value)
    if candidate is not None:
        head, file = candidate
        knobs = ((key, equals, _beside(entry, folder)) for key, equals, entry in map(_knob, head.split(",")))
        return f"{','.join(f'{key}{equals}{entry}' for key, equals, entry in knobs)}:{_beside(file, folder)}"
    looks_like_file = is_file or "/" in value or bool(Path(value).suffix)
    return str((folder / value).resolve()) if looks_like_file and (folder / value).exists() else value


def _knob(word: str) -> tuple[str, str, str]:
    return word.partition("=")
