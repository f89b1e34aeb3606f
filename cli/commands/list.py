"""List the parts there are: targets, engines, formats, methods, metrics, recipes …

A kind is a folder and a part is a file in it, so the list is the listing of the folders.
"""

import click

from convkit.cli import options, show
from convkit.compress import parts
from convkit.compress.errors import ConvkitError

KINDS = {
    "calibrators": ("compress/calibrators", ".py"),
    "commands": ("cli/commands", ".py"),
    "convs": ("compress/convs", ".py"),
    "engines": ("runtimes", ".py"),
    "exports": ("export/engines", ".py"),
    "formats": ("compress/formats", ".py"),
    "methods": ("compress/methods", ".py"),
    "metrics": ("compress/metrics", ".py"),
    "recipes": ("recipes", ".yaml"),
    "reports": ("cli/reports", ".py"),
    "rules": ("export/rules", ".py"),
    "searches": ("compress/search", ".py"),
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
      convkit list formats --json
    """
    found = {name: _parts(name) for name in ([kind] if kind else KINDS)}
    if as_json:
        show.json({"schema_version": 1, **found})
        return
    rows = [(name, part, about) for name, entries in found.items() for part, about in entries.items()]
    if not rows:
        raise ConvkitError(f"there are no {kind} yet", hint="see `convkit list`")
    show.table(("kind", "name", "about"), rows)


PART = list_parts


def _parts(kind: str) -> dict[str, str]:
    folder, suffix = KINDS[kind]
    return {name: parts.about(folder, name, suffix) for name in parts.names(folder, suffix)}
