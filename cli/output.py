"""Where a result goes: what stands there already is named before it is replaced, and what a person wrote never is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from convkit.cli import options, show
from convkit.compress import record
from convkit.compress.errors import ConvkitError


def check(output: str, plan: str | None = None, *, dry_run: bool = False) -> None:
    """Refuse a folder that cannot be written or holds what convkit did not write; say that a result is replaced.

    A plan.yaml there that was edited is the user's, and refused unless it is the `plan` that is applied.
    """
    record.check_output(output)
    manifest, mine = Path(output) / record.MANIFEST, Path(output) / record.PLAN
    if not manifest.exists():
        return
    applied = plan is not None and Path(plan).exists() and mine.exists() and mine.samefile(plan)
    if mine.exists() and not applied and record.digest_file(mine) not in manifest.read_text():
        raise ConvkitError(f"{mine} was edited since it was written", hint="apply it with --plan, or give a new folder")
    if not dry_run:
        show.note(f"replacing the earlier result in {output}")


def describe(
    folder: Path,
    report: Mapping[str, object] | None,
    *,
    digests: Mapping[str, str],
    target: str | None = None,
    seed: int = 0,
    **facts: object,
) -> None:
    """Write what belongs beside a result: its report, and the manifest, which has the command line.

    All but `report` is as `record.manifest` takes it.
    """
    if report is not None:
        record.write_json(folder / record.REPORT, report)
    made = record.manifest(command=options.command_line(), digests=digests, target=target, seed=seed, **facts)
    record.write_json(folder / record.MANIFEST, made)
