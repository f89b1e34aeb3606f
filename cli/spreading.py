"""The steps of a run spread over the machines of a cluster, each as soon as what it needs is done."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from convkit.cli import journal, performing, show
from convkit.cli.cluster import Cluster, Ended
from convkit.cli.journal import Done, Journal
from convkit.cli.performing import Performed
from convkit.cli.step import MEASURES, Step, parameters
from convkit.compress import parts
from convkit.compress.errors import ConvkitError, NotAvailableError

_BUILDS = "no_build"
"""The option of commands that build engines for their target."""
_TRIES = 3
"""How often a step is begun whose worker or machine is lost."""


def target(step: Step) -> str | None:
    """Name of the target whose hardware the step must be done on; None where any machine will do."""
    given, known = step.settings.get("target"), parameters(step.command)
    if not isinstance(given, str) or not {MEASURES, _BUILDS} & known.keys():
        return None
    name = Path(given).stem if given.endswith((".yaml", ".yml")) else given
    return name if name != given or name in parts.names("recipes/targets", ".yaml") else None


@dataclass(slots=True)
class Spread:
    """A run on the way: `done` and `failed` are what came of steps, `under_way` those that a machine does."""

    steps: Sequence[Step]
    book: Journal
    cluster: Cluster
    resume: bool
    force: bool
    quiet: bool
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[str, Exception | Performed] = field(default_factory=dict)
    under_way: dict[Any, Step] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    told: int = 0

    def end(self) -> Mapping[str, Done]:
        """Do all of them. Where one fails the others under way are waited for and kept; then its error is raised, or
        what it printed is, and its exit code given.
        """
        self.book.leave(self.token)
        self._forward()
        while self.under_way:
            began, ended = self.cluster.wait()
            self._take(self.under_way.pop(began), ended)
            self._tell()
            self._forward()
        for step in self.steps:
            found = self.failed.get(step.name)
            if isinstance(found, Exception):
                self._print(found.printed if isinstance(found, ConvkitError) else "")
                raise found
            if found is not None:
                self._print(found.printed)
                click.get_current_context().exit(found.code)
        return self.done

    def _forward(self) -> None:
        """Take what is kept from before and begin what can be: steps stand behind those that they need."""
        taken = {*self.done, *self.failed, *(step.name for step in self.under_way.values())}
        for step in self.steps:
            if self.failed or step.name in taken or not step.needs() <= self.done.keys():
                continue
            digest = journal.digest(step, self.book.needed(step))
            kept = None if self.force else self.book.done(step, digest)
            if kept is None:
                self._begin(step, digest)
            else:
                self.done[step.name] = kept
                show.note(f"{self._title(step)}: kept from before")
        self._tell()

    def _begin(self, step: Step, digest: str) -> None:
        there = target(step)
        machine = self.cluster.free(there)
        if machine is not None:
            show.note(f"{self._title(step)} on {machine.name} …")
            goes_on = self.resume or bool(self.lost[step.name])
            if self.force and not self.lost[step.name]:
                self.book.forget(step)  # it may go on, but is not taken as done
            what = step, self.book, digest, self.token, goes_on
            self.under_way[self.cluster.start(machine, there, performing.perform_there, *what)] = step
        elif not self.cluster.machines(there):
            self.failed[step.name] = NotAvailableError(
                f"step {step.name}: no machine of the cluster is left{f' that has {there}' if there else ''}",
                hint="start one, and go on with --resume",
            )

    def _take(self, step: Step, ended: Ended[Performed]) -> None:
        title, found = f"{self._title(step)} on {ended.machine.name}", ended.result
        if ended.lost:
            self.lost[step.name] += 1
            show.note(f"{title}: its process was lost ({ended.lost})")
            if self.lost[step.name] == _TRIES:
                hint = "see why: memory, perhaps; then go on with --resume"
                self.failed[step.name] = ConvkitError(f"step {step.name}: lost {_TRIES} times", hint=hint)
        elif isinstance(found, Performed) and found.done is not None:
            self.done[step.name] = found.done
            show.note(f"{title}: done")
        elif found is not None:
            self.failed[step.name] = found
            show.note(f"{title}: failed")
        for line in found.warned if isinstance(found, Performed) else ():
            show.note(line)

    def _tell(self) -> None:
        """Print what steps printed, in the order of the recipe."""
        while self.told < len(self.steps) and self.steps[self.told].name in self.done:
            self._print(self.done[self.steps[self.told].name].printed)
            self.told += 1

    def _print(self, text: str) -> None:
        if not self.quiet:
            with contextlib.redirect_stdout(self.cluster.out):
                show.again(text)

    def _title(self, step: Step) -> str:
        return f"{self.steps.index(step) + 1}/{len(self.steps)} {step.name}"
