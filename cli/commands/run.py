"""Run a recipe: inspect, quantize, export, verify and bench in one go, each step kept and resumed.

A step is the command of that name with the recipe's settings as its options; there is no second way in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from convkit.cli import journal, options, recipe, rehearsal, show, values
from convkit.cli.journal import Done, Journal
from convkit.cli.step import Step, parameters, words
from convkit.compress import record
from convkit.compress.errors import GOOD, ConvkitError


@click.command
@click.argument("name", metavar="RECIPE", type=values.Part("recipes", ".yaml"))
@options.output
@options.json
@options.dry_run
@options.resume
@click.option("--force", is_flag=True, help="Do every step again, finished or not.")
def run(name: str, output: str, as_json: bool, dry_run: bool, resume: bool, force: bool) -> None:
    """Run RECIPE, a YAML file or a name from `convkit list recipes`, into a folder.

    A step whose settings, files and convkit are what they were is not done again. A run that was interrupted,
    even by kill -9, goes on with --resume.

    \b
    Examples:
      convkit run lite0 -o out/lite0
      convkit run recipe.yaml -o out/ --dry-run
      convkit run recipe.yaml -o out/ --resume
    """
    wanted = recipe.load(name)
    book = Journal(Path(output))
    if dry_run:
        _plan(wanted, book, as_json=as_json, force=force)
        return
    with book.locked():
        steps = [
            _do(step, book, f"{number}/{len(wanted.steps)} {step.name}", quiet=as_json, resume=resume, force=force)
            for number, step in enumerate(_asked(wanted, as_json=as_json), 1)
        ]
    report = {"schema_version": 1, "recipe": wanted.name, "steps": steps}
    record.write_json(book.output / "report.json", report)
    if as_json:
        show.json(report)


PART = run


def _asked(wanted: recipe.Recipe, *, as_json: bool) -> list[Step]:
    """The steps; for --json those that leave no report in a folder print it instead."""

    def asked(step: Step) -> Step:
        known = parameters(step.command)
        settings = {"json": True} if as_json and "json" in known and "output" not in known else {}
        return dataclasses.replace(step, settings={**step.settings, **settings})

    return [asked(step) for step in wanted.steps]


def _do(step: Step, book: Journal, title: str, *, quiet: bool, resume: bool, force: bool) -> dict[str, Any]:
    """Do one step, or take it as it was done before; what the report says of it."""
    folders = {name: book.output / name for name in step.needs()}
    digest = journal.digest(step, folders)
    done = None if force else book.done(step, digest)
    if done:
        show.note(f"{title}: kept from before")
        if not quiet:
            show.again(done.printed)
    else:
        show.note(f"{title} …")
        done = _call(step, folders, book, digest, quiet=quiet, resume=resume)
        book.write(step, done)
    return _entry(step, done, book)


def _call(step: Step, folders: Mapping[str, Path], book: Journal, digest: str, *, quiet: bool, resume: bool) -> Done:
    """Run the step's command in this process; its exit code other than 0 ends the run."""
    from convkit.cli.main import CLI

    typed = [step.command, *words(step, folders, book.folder(step), resume=resume)]
    with _copied(quiet=quiet) as copy:
        try:
            code = CLI.main(typed, prog_name="convkit", standalone_mode=False)
        except ConvkitError as error:
            raise type(error)(f"step {step.name}: {error.message}", hint=error.hint) from error
    if code not in {None, GOOD}:
        click.get_current_context().exit(code)
    return Done(digest, tuple(typed), copy.getvalue())


def _entry(step: Step, done: Done, book: Journal) -> dict[str, Any]:
    entry = {"name": step.name, "command": ["convkit", *done.command], "digest": done.digest}
    file = book.folder(step) / "report.json"
    with contextlib.suppress(ValueError):
        entry["report"] = json.loads(file.read_text() if file.exists() else done.printed)
    return entry


def _plan(wanted: recipe.Recipe, book: Journal, *, as_json: bool, force: bool) -> None:
    """What would be done, once models and data are looked at: a step is kept if its record still holds and none that
    it reads from is done again."""
    again: set[str] = set()
    rows: list[dict[str, str]] = []
    for step in wanted.steps:
        folders = {name: book.output / name for name in step.needs()}
        rehearsal.check(step, folders, book.folder(step))
        fresh = force or bool(step.needs() & again) or not book.done(step, journal.digest(step, folders))
        if fresh:
            again.add(step.name)
        typed = shlex.join(["convkit", step.command, *words(step, folders, book.folder(step))])
        rows.append({"step": step.name, "state": "would run" if fresh else "kept", "command": typed})
    if as_json:
        show.json({"schema_version": 1, "recipe": wanted.name, "steps": rows})
    else:
        show.text("\n".join(f"{row['step']}: {row['state']}\n  {row['command']}" for row in rows))


class _Copy(io.StringIO):
    """Standard output that also keeps what passes through; silent when `through` is None."""

    def __init__(self, through: TextIO | None) -> None:
        super().__init__()
        self._through = through

    def write(self, text: str) -> int:
        if self._through:
            self._through.write(text)
        return super().write(text)

    def flush(self) -> None:
        if self._through:
            self._through.flush()

    def isatty(self) -> bool:
        return self._through is not None and self._through.isatty()


@contextlib.contextmanager
def _copied(*, quiet: bool) -> Iterator[_Copy]:
    copy = _Copy(None if quiet else sys.stdout)
    with contextlib.redirect_stdout(copy):
        yield copy
