"""The Step: one command with its settings, as a recipe holds it and as the command line spells it."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click

from convkit.compress import parts

COMMANDS = "cli/commands"
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""click's settings, the same for every command however it is called."""
MEASURES = "budget"
"""The option, seconds of timing, of commands that measure on their target."""
REFERENCE = re.compile(r"\$\{([^}]*)\}")
"""`${NAME}`: the output folder of the step NAME."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a recipe with its settings, keyed by option name; `${…}` still stands in them."""

    name: str
    command: str
    settings: Mapping[str, Any]

    def needs(self) -> set[str]:
        """Names of the steps whose output it reads."""
        return {name for text in strings(self.settings) for name in REFERENCE.findall(text)}


def load_command(name: str) -> click.Command:
    """The click command in cli/commands/NAME.py."""
    return cast("click.Command", parts.load(COMMANDS, name))


def parse(command: str, words: list[str]) -> click.Context:
    """Let a command read its words; nothing runs. Raises click.UsageError or ConvkitError for wrong ones.

    click keeps a command's help option from its first context, so every context has the command line's settings.
    """
    return load_command(command).make_context(command, words, **CONTEXT)


def parameters(command: str) -> dict[str, click.Parameter]:
    """A command's parameters by the key a recipe gives them: `--dry-run` is dry_run, an argument has its own name."""
    return {_key(parameter): parameter for parameter in load_command(command).params if parameter.expose_value}


def _key(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).lstrip("-").replace("-", "_")
    return parameter.name or ""


def words(step: Step, folders: Mapping[str, Path], output: Path, *, resume: bool = False) -> list[str]:
    """The command line of a step, its name left out; `folders` are the outputs that `${…}` stands for."""
    given = {**step.settings, "output": str(output), **({"resume": True} if resume else {})}
    options, arguments = [], []
    for key, parameter in parameters(step.command).items():
        if given.get(key) is None:
            continue
        value = expand(given[key], folders)
        if isinstance(parameter, click.Option):
            options += _option(parameter, value)
        else:
            arguments += [str(item) for item in (value if isinstance(value, list) else [value])]
    return [*options, *(["--", *arguments] if arguments else [])]


def _option(option: click.Option, value: object) -> list[str]:
    name = max(option.opts, key=len)
    if option.is_flag:
        return [name] if value else option.secondary_opts[:1]
    if option.multiple and isinstance(value, dict):
        return [f"{name}={key}={_yaml(entry)}" for key, entry in value.items()]
    entries = value if option.multiple and isinstance(value, list) else [value]
    return [f"{name}={_word(entry)}" for entry in entries]


def _yaml(value: object) -> str:
    """As it is read again: a word that YAML has a meaning for, such as off, in quotes, and 1e-05 with its point."""
    import yaml

    if not isinstance(value, str):
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
        return text.removesuffix("\n").removesuffix("\n...")
    with contextlib.suppress(yaml.YAMLError, ValueError):
        if yaml.safe_load(value) == value:
            return value
    return json.dumps(value, ensure_ascii=False)


def _word(value: object) -> str:
    if isinstance(value, dict):
        return _yaml(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def expand(value: object, folders: Mapping[str, Path]) -> Any:  # noqa: ANN401 - the shape of the value is kept
    """`value` with every `${NAME}` in it replaced by the step's folder."""
    return each(value, lambda text: REFERENCE.sub(lambda match: str(folders[match[1]]), text))


def each(value: object, change: Callable[[str], str]) -> object:
    """`value` with `change` applied to every string inside."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: each(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [each(entry, change) for entry in value]
    return value


def of_engine(text: str) -> tuple[str, str] | None:
    """The two sides of `ENGINE[,knob=value...]:MODEL`; None for any other text."""
    head, colon, file = text.partition(":")
    known = head.split(",")[0] in parts.names("runtimes")
    return (head, file) if colon and file and known else None


def strings(value: object) -> Iterator[str]:
    """Every string inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)
