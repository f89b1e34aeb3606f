"""Run a recipe: inspect, quantize, export, verify and bench in one go, each step kept and resumed.

A step is the command of that name with the recipe's settings as its options; there is no second way in.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from convkit.cli import journal, options, performing, recipe, rehearsal, show, values
from convkit.cli.journal import Done, Journal
from convkit.cli.step import Step, parameters, words
from convkit.compress import record
from convkit.compress.errors import ConvkitError


@click.command
@click.argument("name", metavar="RECIPE", type=values.Part("recipes", ".yaml"))
@options.output
@options.json
@options.dry_run
@click.option(
    "--resume", is_flag=True, help="Go on inside the step that was interrupted; steps that are done are kept anyway."
)
@click.option("--force", is_flag=True, help="Do every step again, finished or not.")
@click.option(
    "--ray",
    "address",
    type=values.WORD,
    metavar="ADDRESS",
    help="Do steps on the machines of a Ray cluster: auto, HOST:PORT of its head, or local, this machine alone.",
)
def run(name: str, output: str, as_json: bool, dry_run: bool, resume: bool, force: bool, address: str | None) -> None:
    """Run RECIPE, a YAML file or a name from `convkit list recipes`, into a folder.

    A step whose settings, files and convkit are what they were is not done again. A run that was interrupted,
    even by kill -9, goes on with --resume.

    A step with `each: {seed: [0, 1, 2]}` is as many steps, NAME-0 to NAME-2. On a Ray cluster, which this machine has
    joined, steps that do not read from each other are done at once, a machine each; those that measure or build for a
    target on a machine whose resources name it: ray start --address=HEAD:6379 --resources='{"openvino-cpu": 1}'.
    Machines share a file system with the recipe, its data and modules, and OUTPUT. A step whose machine is lost goes on
    at another one.

    \b
    A recipe:
      model: net.onnx           or {path: models:build, weights: …, args: {…}, shape: "x:Nx3x224x224"}
      data: {calib: calib.npz, val: {path: photos/, pattern: "*_{label}.jpg"}}
      target: onnxruntime-cpu   any option here is meant for every step that has it
      steps:                    each is a command and its options: --max-drop 1 is max_drop: 1
        - {command: quantize, name: int8, data: calib, tune: false}     writes OUTPUT/int8
        - {command: verify, reference: net.onnx, candidate: "${int8}/model.onnx", data: val}
        - {command: bench, candidates: [net.onnx, "${int8}/model.onnx"], gate: ["p50 <= 0.8x"]}

    Files are looked for beside the recipe. The exit code is that of the first step that fails.

    \b
    Examples:
      convkit run lite0 -o out/lite0
      convkit run recipe.yaml -o out/ --dry-run
      convkit run recipe.yaml -o out/ --resume
      convkit run recipe.yaml -o shared/out --ray head:6379
    """
    wanted = recipe.load(name)
    book = Journal(Path(output))
    if dry_run:
        _plan(wanted, book, as_json=as_json, force=force)
        return
    steps = _asked(wanted, as_json=as_json)
    with book.locked():
        (book.output / record.REPORT).unlink(missing_ok=True)
        done: dict[str, Done] = {}
        try:
            if address is None:
                for number, step in enumerate(steps, 1):
                    title = f"{number}/{len(steps)} {step.name}"
                    done[step.name] = _do(step, book, title, quiet=as_json, resume=resume, force=force)
            else:
                _spread(steps, book, address, done, quiet=as_json, resume=resume, force=force)
        except ConvkitError as error:
            failed = {"message": str(error), "exit_code": error.exit_code, **_parsed(error.printed)}
            _report(wanted, steps, done, book, as_json=as_json, failed=failed)
            raise
        _report(wanted, steps, done, book, as_json=as_json)


PART = run


def _asked(wanted: recipe.Recipe, *, as_json: bool) -> list[Step]:
    """The steps; for --json those that leave no report in a folder print it instead."""

    def asked(step: Step) -> Step:
        known = parameters(step.command)
        if not as_json or "json" not in known or "output" in known:
            return step
        others = {key: value for key, value in step.settings.items() if key != "markdown"}
        return replace(step, settings={**others, "json": True})

    return [asked(step) for step in wanted.steps]


def _do(step: Step, book: Journal, title: str, *, quiet: bool, resume: bool, force: bool) -> Done:
    """Do one step, or take it as it was done before."""
    digest = journal.digest(step, book.needed(step))
    done = None if force else book.done(step, digest)
    if done:
        show.note(f"{title}: kept from before")
        if not quiet:
            show.again(done.printed)
        return done
    show.note(f"{title} …")
    made = performing.perform(step, book, digest, quiet=quiet, resume=resume)
    return made if isinstance(made, Done) else click.get_current_context().exit(made)


def _spread(
    steps: Sequence[Step],
    book: Journal,
    address: str,
    done: dict[str, Done],
    *,
    quiet: bool,
    resume: bool,
    force: bool,
) -> None:
    """Do all of them on the cluster at `address`, and note in `done` what is."""
    from convkit.cli import cluster, spreading

    fresh = _fresh(steps, book, force=force)
    targets = sorted({there for step in steps if step.name in fresh and (there := spreading.target(step))})
    with cluster.joined(address, targets) as machines:
        spreading.Spread(steps, book, machines, resume, force, quiet, done=done).end()


def _report(
    wanted: recipe.Recipe,
    steps: Sequence[Step],
    done: Mapping[str, Done],
    book: Journal,
    *,
    as_json: bool,
    failed: Mapping[str, Any] | None = None,
) -> None:
    """What is done, in the order of the recipe, and what `failed` where one did: into the output, and printed."""
    entries = [_entry(step, done[step.name], book) for step in steps if step.name in done]
    report = {"schema_version": 1, "recipe": wanted.name, "steps": entries}
    report |= {} if failed is None else {"failed": dict(failed)}
    record.write_json(book.output / record.REPORT, report)
    if as_json:
        show.json(report)


def _entry(step: Step, done: Done, book: Journal) -> dict[str, Any]:
    entry = {"name": step.name, "command": ["convkit", *done.command], "digest": done.digest}
    file = book.folder(step) / record.REPORT
    written = "output" in parameters(step.command) and file.exists()
    return entry | _parsed(file.read_text() if written else done.printed)


def _parsed(text: str) -> dict[str, Any]:
    """JSON that a command has written or printed, as a report; nothing of what is none."""
    try:
        return {"report": json.loads(text)}
    except ValueError:
        return {}


def _plan(wanted: recipe.Recipe, book: Journal, *, as_json: bool, force: bool) -> None:
    """What would be done, once models and data are looked at: a step is kept if its record still holds and none that
    it reads from is done again."""
    for step in wanted.steps:
        rehearsal.check(step, book.needed(step), book.folder(step))
    fresh = _fresh(wanted.steps, book, force=force)
    rows = [
        {
            "step": step.name,
            "state": "would run" if step.name in fresh else "kept",
            "command": shlex.join(["convkit", step.command, *words(step, book.needed(step), book.folder(step))]),
        }
        for step in wanted.steps
    ]
    if as_json:
        show.json({"schema_version": 1, "recipe": wanted.name, "steps": rows})
    else:
        show.text("\n".join(f"{row['step']}: {row['state']}\n  {row['command']}" for row in rows))


def _fresh(steps: Sequence[Step], book: Journal, *, force: bool) -> set[str]:
    """Those that are to be done: their record does not hold, or a step that they read from is done again."""
    found: set[str] = set()
    for step in steps:
        if force or step.needs() & found or not book.done(step, journal.digest(step, book.needed(step))):
            found.add(step.name)
    return found
