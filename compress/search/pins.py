"""Pins: layers whose format a person decided, so that a search leaves them as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.option import FLOAT, Option

IN_FLOAT = "float"
"""What pins a layer in float."""
Pins = Mapping[str, str]


Narrower = Mapping[str, str]
"""Formats that weights have instead on a processor whose sums others would overflow, by the latter's names."""


def formats(pins: Pins, narrower: Narrower | None = None) -> tuple[str, ...]:
    """Formats of weights that the pins ask for, each once."""
    asked = (_promoted(text, narrower or {}).partition("/")[0] for text in pins.values() if not _is_float(text))
    return tuple(dict.fromkeys(asked))


def chosen(
    pins: Pins,
    options: Mapping[str, Iterable[Option]],
    floats: Collection[str] = (),
    floating: Option = FLOAT,
    narrower: Narrower | None = None,
) -> dict[str, Option]:
    """The Option that each pin means among those of its layer; `floats` are layers that run in float anyway.

    What runs in float is in the Option `floating`.

    Raises ConvkitError for a layer that does not exist, with the closest name, and for what it cannot run in.
    """
    found = {}
    for layer, text in pins.items():
        if layer in options:
            found[layer] = _meant(layer, (text, _promoted(text, narrower or {})), tuple(options[layer]), floating)
        elif layer not in floats:
            hint = nearest(layer, [*options, *floats], "`convkit inspect` lists the layers")
            raise ConvkitError(f"there is no layer {layer!r} to pin", hint=hint)
        elif not _is_float(text):
            raise ConvkitError(
                f"layer {layer!r} is pinned to {text}, but runs in float alone here",
                hint="pin it to float, or not at all",
            )
    return found


def _is_float(text: str) -> bool:
    return text in (IN_FLOAT, str(FLOAT))


def _promoted(text: str, narrower: Narrower) -> str:
    weight, slash, activation = text.partition("/")
    return f"{narrower.get(weight, weight)}{slash}{activation}"


def _meant(layer: str, words: tuple[str, str], known: tuple[Option, ...], floating: Option) -> Option:
    """By the pin's text, else by what that is on the processor."""
    text = words[0]
    for word, option in ((word, option) for word in words for option in known):
        if word in (str(option), option.weight) or (option == floating and _is_float(word)):
            return option
    listed = ", ".join(IN_FLOAT if option == floating else str(option) for option in known)
    raise ConvkitError(f"layer {layer!r} is pinned to {text}, which it cannot run in", hint=f"it can run in {listed}")
