"""Values written by hand as YAML, their fields checked by name and type before anything is made of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from convkit.compress.errors import ConvkitError

Types = Mapping[str, type | tuple[type, ...]]


def read(path: str | Path, what: str, hint: str) -> dict[str, Any]:
    """The keys and values in the YAML file `path`; whatever else it holds is no `what`, the user's error."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConvkitError(f"cannot read {what} {path}: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ConvkitError(f"{path} is no {what}: {error}", hint=hint) from error
    return loads(text, str(path), what, hint)


def loads(text: str, where: str, what: str, hint: str) -> dict[str, Any]:
    """The keys and values in the YAML `text`, which stands `where` it is said; else it is no `what`."""
    import yaml

    class Once(yaml.SafeLoader):
        """Takes no key twice: of the two lines one would go unread."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[tuple[str, Any]] = set()
            for key, _ in node.value:
                known = key.tag, str(key.value)
                if known in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(known)
            return super().construct_mapping(node, deep)

    try:
        found = yaml.load(text, Once)  # noqa: S506 - it makes what SafeLoader makes
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConvkitError(f"{where} is no {what}: {' '.join(str(error).split())}", hint=hint) from error
    if not isinstance(found, dict):
        raise ConvkitError(f"{where} is no {what}: it holds no keys and values", hint=hint)
    return found


@functools.cache
def of(kind: type) -> Types:
    """The fields of a dataclass, with the types that YAML has for them; floats may be words: see `number`."""
    hints = get_type_hints(kind)
    return {field.name: _written(hints[field.name]) for field in dataclasses.fields(kind)}


def _written(hint: Any) -> type:  # noqa: ANN401 - a type, or a form of several
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
        return _written(hint)
    if origin is float:
        return object
    if origin is tuple:
        return list
    return dict if dataclasses.is_dataclass(origin) or issubclass(origin, Mapping) else origin


def fields(where: str, given: object, types: Types, required: Collection[str] = ()) -> dict[str, Any]:
    """`given` as a mapping whose names are those of `types`; raises ValueError that says what is wrong `where`."""
    if not isinstance(given, dict):
        raise ValueError(f"{where} is {given!r}, not fields and values")  # noqa: TRY004 - one kind of error for all
    for name in required:
        if name not in given:
            raise ValueError(f"{where} lacks {name!r}")
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"{where} has {name!r}, which is none of {', '.join(types)}")
        kind = types[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name!r} of {where} is {value!r}")
    return given


def number(where: str, value: object) -> float:
    """A finite number; YAML 1.1 reads 1e-05 as a word."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{where} is {value!r}, not a finite number")
    return found
