"""List the parts there are: targets, engines, formats, methods, metrics, recipes …

A kind is a folder and a part is a file in it, so the list is the listing of the folders.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from convkit.cli import options, show
from convkit.compress import parts
from convkit.compress.errors import ConvkitError

KINDS = {
    "calibrators": ("compress/calibrators", ".py"),
    "commands": ("cli/commands", ".py"),
    "convs": ("compress/convs", ".py"),
    "deciders": ("compress/training/deciders", ".py"),
    "engines": ("runtimes", ".py"),
    "exports": ("export/engines", ".py"),
    "formats": ("compress/formats", ".py"),
    "forms": ("compress/forms", ".py"),
    "importance": ("compress/importance", ".py"),
    "kernels": ("export/ops", "/kernel.py"),
    "methods": ("compress/methods", ".py"),
    "metrics": ("compress/metrics", ".py"),
    "recipes": ("recipes", ".yaml"),
    "reports": ("cli/reports", ".py"),
    "rules": ("export/rules", ".py"),
    "sources": ("compress/sources", ".py"),
    "targets": ("recipes/targets", ".yaml"),
}


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]", type=click.Choice(list(KINDS)))
@options.json
def list_parts(kind: str | None, as_json: bool) -> None:
    """List the parts there are, of one KIND or of all.

    \b
    Examples:
      convkit list
      convkit list targets
      convkit list convs
      convkit list formats --json
    """
    found = {name: _parts(name) for name in ([kind] if kind else KINDS)}
    proven = _proven(found[kind]) if kind == "convs" else {}
    if as_json:
        show.json({"schema_version": 1, **found, **({"proven": proven} if proven else {})})
        return
    if proven:
        show.table(("conv", "paper", "tier", "engines", "formats", "kernel"), [*_rows(found["convs"], proven)])
        return
    rows = [(name, part, about) for name, entries in found.items() for part, about in entries.items()]
    if not rows:
        raise ConvkitError(f"there are no {kind} yet", hint="see `convkit list`")
    show.table(("kind", "name", "about"), rows)


PART = list_parts


def _proven(names: Iterable[str]) -> dict[str, Any]:
    """What tests have found of each novel convolution, where they have."""
    from dataclasses import asdict

    from convkit.compress import conv
    from convkit.export import kernel

    found = {name: proof for name in names if (proof := conv.proof(name)) is not None}
    return {name: asdict(proof) | {"kernels": kernel.of_conv(name)} for name, proof in found.items()}


def _rows(convs: Mapping[str, str], proven: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One of each; what nobody has proven, a package's own, says what it is."""
    for name, about in convs.items():
        proof = proven.get(name)
        if proof is None:
            yield name, about, "–", _standing(name), "–", "–"
            continue
        engines = [f"{engine} {does.partition(';')[0]}" for engine, does in proof["engines"].items()]
        formats = [f"{number} {found['sqnr']:.0f} dB" for number, found in proof["formats"].items()]
        own = ", ".join(proof["kernels"]) or "–"
        yield name, proof["paper"], proof["tier"], ", ".join(engines), ", ".join(formats) or "in float", own


def _standing(name: str) -> str:
    """What there is to say of a package's own."""
    from convkit.compress import conv

    try:
        conv.load(name)
    except ConvkitError as error:
        return str(error)
    return "not proven here"


def _parts(kind: str) -> dict[str, str]:
    folder, suffix = KINDS[kind]
    return {name: parts.about(folder, name, suffix) for name in parts.names(folder, suffix)}
