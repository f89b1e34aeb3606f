"""The options by which `convkit train` trains a quantized network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click

from convkit.cli import options, values
from convkit.compress.errors import ConvkitError


@dataclass(frozen=True, slots=True)
class Asked:
    """Formats, and how they are trained: the options that make `convkit train` train a quantized network."""

    precision: str | None
    plan: str | None
    target: str | None
    teach: float | None
    ranges: str
    norms: bool
    loader: str | None
    switch: tuple[int, ...]
    mixed: bool
    search: tuple[str, ...]
    bops: str | None
    latency: str | None
    tables: str | None
    by: str | None
    together: tuple[str, ...]
    widths: tuple[float, ...]

    @property
    def quantized(self) -> bool:
        """Whether formats are asked for."""
        limits = self.bops or self.latency or self.tables or self.together or self.mixed or self.by or self.widths
        return bool(self.precision or self.plan or self.switch or self.search or limits)

    def refuse_beside_labels(self, *, shards: int) -> None:
        """Raise ConvkitError for what says how a quantized network is trained, where none is; a target may be the whole
        recipe's."""
        given = {
            "--loader": self.loader is not None,
            "--teach": self.teach is not None,
            "--ranges": self.ranges != "learned",
            "--norms": self.norms,
            "--shards": shards > 1,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            raise ConvkitError(
                f"{wrong[0]} says how a quantized network is trained", hint="give --precision as well, or leave it out"
            )


_FEWEST, _MOST = 2, 8
"""Bits of a width."""


def _widths(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Bits, the most first."""
    del context, option
    words = [] if text is None else [word.strip() for word in text.split(",")]
    known = {str(bits): bits for bits in range(_FEWEST, _MOST + 1)}
    wrong = [word for word in words if word not in known]
    if wrong or (words and len(set(words)) == 1):
        what = f"{wrong[0]!r} is none" if wrong else "there is one"
        raise ConvkitError(f"--switch takes widths, {what}", hint=f"give two or more from {_FEWEST} to {_MOST}: 8,4")
    return tuple(sorted({known[word] for word in words}, reverse=True))


def _shares(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    """Shares of channels, the largest first."""
    del context, option
    if text is None:
        return ()
    try:
        found = tuple(sorted({float(word) for word in text.split(",")}, reverse=True))
    except ValueError:
        found = ()
    if not found or not all(0 < share < 1 for share in found):
        raise ConvkitError(f"--widths {text!r} are no shares of channels", hint="give some between 0 and 1: 0.75,0.5")
    return found


def _formats(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Names, each once."""
    del context, option
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if words and (len(set(words)) < len(words) or len(words) == 1 or not all(words)):
        raise ConvkitError(f"--search {text!r} is no choice", hint="give two formats or more, each once: int8,int4")
    return tuple(words)


_OPTIONS = (
    click.option(
        "--precision",
        type=values.WORD,
        metavar="NAME",
        help="Train the network with its weights and activations in these formats: int8, int4, int4/uint4, fp8_e4m3.",
    ),
    click.option("--plan", type=values.WORD, metavar="FILE", help="Train it in the formats of this plan.yaml."),
    click.option(
        "--switch",
        type=values.WORD,
        callback=_widths,
        metavar="BITS,...",
        help="Train it to run at each of these widths, from one stored network: 8,6,4,2; `convkit switch` makes files.",
    ),
    click.option(
        "--mixed",
        is_flag=True,
        help="Let layers of --switch differ in width, too; `convkit switch --bops` chooses which.",
    ),
    click.option(
        "--search",
        type=values.WORD,
        callback=_formats,
        metavar="NAME,...",
        help="Search the format of each layer while it is trained, once: int8,int4,int2; with --bops or --latency.",
    ),
    click.option("--bops", metavar="BUDGET", help='What --search may cost: "<=20G" bit operations, or "<=0.04x".'),
    click.option(
        "--latency", metavar="BUDGET", help='What --search may take: "<=4ms" or "<=0.6x", by the times of --tables.'
    ),
    click.option(
        "--tables",
        type=values.WORD,
        metavar="FILE|FOLDER",
        help="The tables.json that `convkit quantize` left of this network on the target, with these formats.",
    ),
    click.option(
        "--by",
        type=values.WORD,
        metavar="NAME",
        help="How --search decides; hawq does before it trains; `convkit list deciders`.  [default: fliqs]",
    ),
    click.option(
        "--together",
        multiple=True,
        metavar="PATTERN",
        help='Layers that --search decides as one, such as "stage1.*"; may be repeated.',
    ),
    click.option(
        "--widths",
        type=values.WORD,
        callback=_shares,
        metavar="SHARE,...",
        help="Let --search within --bops choose how many of their channels layers have, too: 0.75,0.5.",
    ),
    options.usual_target,
    click.option(
        "--teach",
        type=click.FloatRange(0, 1),
        callback=values.finite,
        metavar="SHARE",
        help="Of what --precision learns, the part that the float network says rather than labels.  "
        "[default: 1 without labels, else 0.5]",
    ),
    click.option(
        "--ranges",
        type=click.Choice(["learned", "followed"]),
        default="learned",
        show_default=True,
        help="Ranges of activations: learned by their gradients, or the mean of those that batches have.",
    ),
    click.option(
        "--norms/--no-norms",
        default=False,
        show_default=True,
        help="Normalize behind convolutions while --precision trains; folded into scales at the end.",
    ),
    click.option(
        "--loader",
        type=values.WORD,
        metavar="MODULE:FUNCTION",
        help="Learn, with --precision, from what your function returns, such as a DataLoader; --data calibrates and "
        "judges.",
    ),
)


def settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of Asked; the command gets `formats`."""

    @functools.wraps(function)
    def with_settings(**others: Any) -> object:  # noqa: ANN401 - click's values
        own = {field.name: others.pop(field.name) for field in fields(Asked)}
        return function(formats=Asked(**own), **others)

    for option in reversed(_OPTIONS):
        option(with_settings)
    return with_settings
