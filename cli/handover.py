"""What `convkit sensitivity` hands over to a search: the values with which this begins, and all that they hang on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import sensing
from convkit.compress import code, record, schema
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.checkpoint import Checkpoint
    from convkit.cli.quantizing import Job
    from convkit.cli.searchspace import Wishes
    from convkit.cli.sensing import Sensed

FILE = "sensitivity.json"
SCHEMA_VERSION = 1
_HINT = "make it anew with `convkit sensitivity` and the options of this search"
_TOP: schema.Types = {"key": str, "parts": dict, "digest": str, "values": dict}
_OTHER = {
    "network": "another network",
    "data": "other data",
    "target": "another target, or processor with other instructions",
    "limits": "another --max-drop or --min-sqnr",
    "seed": "another --seed",
    "keep": "another --keep",
    "plan": "another --plan",
    "formats": "other formats",
    "forms": "other forms",
    "criterion": "another criterion: see --by-labels",
    "code": "another version of convkit",
}
"""What is said of each part of the key where it differs."""


def values(kept: Checkpoint, found: Iterable[Sensed]) -> dict[str, Any]:
    """What was kept on the way to what was `found`, by name."""
    names = ("remedies", "remedies done", "scores", *(sensing.named(one.run) for one in found))
    return {name: kept.value(name) for name in names}


def key(job: Job, wishes: Wishes) -> str:
    """A digest of all that the values hang on."""
    return record.digest_json(_parts(job, wishes))


def write(folder: Path, job: Job, wishes: Wishes, found: Mapping[str, Any]) -> None:
    """The values `found`, as FILE in `folder`; `digest` is theirs."""
    parts = _parts(job, wishes)
    text = {"key": record.digest_json(parts), "parts": parts, "digest": record.digest_json(found), "values": found}
    record.write_json(folder / FILE, {"schema_version": SCHEMA_VERSION, **text})


def read(path: str, job: Job, wishes: Wishes) -> dict[str, Any]:
    """The values in a file, or in the folder that holds it.

    Raises ConvkitError where there are none, or the search of `wishes` would find others.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        found = _parsed(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConvkitError(f"cannot read sensitivity {file}: {error.strerror}", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise ConvkitError(f"{file} holds no sensitivity: {' '.join(str(error).split())}", hint=_HINT) from error
    asked = _parts(job, wishes)
    other = [_OTHER[name] for name, digest in asked.items() if found["parts"].get(name) != digest]
    if other:
        raise ConvkitError(f"{file} is of {' and of '.join(other)}", hint=_HINT)
    values: dict[str, Any] = found["values"]
    return values


def _parts(job: Job, wishes: Wishes) -> dict[str, str]:
    """Digests of all that the values hang on, by what that is; budgets, and how time is measured, are no part."""
    parts = {
        "network": [job.model.digest, repr(job.model.inputs)],
        "data": job.data.digest,
        "target": repr(job.target),
        "limits": repr(job.limits),
        "seed": job.seed,
        "keep": job.keep,
        "plan": None if job.plan is None else job.plan.digest,
        "formats": [wishes.formats, [precision.name for precision in wishes.precisions]],
        "forms": wishes.forms,
        "criterion": wishes.criterion.name,
        "code": code.digest(),
    }
    return {name: record.digest_json(part) for name, part in parts.items()}


def _parsed(text: object) -> dict[str, Any]:
    if not isinstance(text, dict) or text.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is not {SCHEMA_VERSION}")
    found = schema.fields("it", text, _TOP, tuple(_TOP))
    digests = record.digest_json(found["parts"]), record.digest_json(found["values"])
    if digests != (found["key"], found["digest"]):
        raise ValueError("it was changed since it was written")
    return found
