"""The Journal of a run: which step is done, what it was made from and what it said, under OUTPUT/.steps/.

A record is written after the step's output folder stands, so a run that is killed at any point does at most the step
over that it was in. A record counts only while its digest and every file of its folder are unchanged.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convkit.cli.step import Step, each, expand, of_engine, parameters, strings
from convkit.compress import code, package, record
from convkit.compress.errors import ConvkitError

_FUNCTION = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Done:
    """What is kept of a finished step: the digest of all that went in, its command line and what it printed."""

    digest: str
    command: tuple[str, ...]
    printed: str


@dataclass(frozen=True, slots=True)
class Journal:
    """The records of the runs into one output folder."""

    output: Path

    def folder(self, step: Step) -> Path:
        """Where a step writes."""
        return self.output / step.name

    def needed(self, step: Step) -> dict[str, Path]:
        """Folders of the steps that it reads from, by their names."""
        return {name: self.output / name for name in step.needs()}

    def done(self, step: Step, digest: str) -> Done | None:
        """The step's record, if it is of this digest and the files it tells of are as they were written."""
        try:
            text = json.loads(self._file(step).read_text())
            found = Done(text["digest"], tuple(text["command"]), text["printed"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = "output" not in parameters(step.command) or _whole(self.folder(step))
        return found if found.digest == digest and whole else None

    def write(self, step: Step, done: Done) -> None:
        """Keep a finished step."""
        record.write_json(self._file(step), asdict(done))

    def forget(self, step: Step) -> None:
        """The step is done anew: what it was before says nothing of that."""
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: Step) -> Path:
        return self.output / ".steps" / f"{step.name}.json"

    def leave(self, token: str) -> None:
        """Leave a word by which another machine sees that it has the same folder."""
        record.write_json(self.output / ".steps" / "token.txt", token)

    def token(self) -> str | None:
        """The word that was left."""
        try:
            return str(json.loads((self.output / ".steps" / "token.txt").read_text()))
        except (OSError, ValueError):
            return None

    @contextlib.contextmanager
    def alone(self, step: Step) -> Iterator[None]:
        """Wait until no other process does the step, wherever it runs."""
        with (self.output / ".steps" / f"{step.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of the same output folder, and any run out of a folder whose report is not a run's."""
        folder = self.output / ".steps"
        if (self.output / record.REPORT).exists() and not folder.exists():
            raise ConvkitError(
                f"output {self.output} holds 'report.json', which no run wrote", hint="give another --output"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("w")
        except OSError as error:
            raise ConvkitError(f"cannot write {self.output}: {error.strerror}", hint="give another --output") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConvkitError(
                    f"another run writes to {self.output}", hint="wait, or give another folder"
                ) from error
            yield


def digest(step: Step, folders: Mapping[str, Path]) -> str:
    """sha256 of a step's settings, the content of every file they name, and convkit itself; places do not count."""
    import yaml

    places = {name: folder.absolute() for name, folder in folders.items()}
    settings = each(expand(step.settings, places), lambda text: _content(text) or text)
    return record.digest_json([step.command, yaml.safe_dump(settings), code.digest()])  # YAML: it has dates


def _content(text: str) -> str | None:
    """Digest of what `text` names: a file, a folder or the code of a function; None if it is just text."""
    candidate = of_engine(text)
    if candidate is not None:
        head, file = candidate
        knobs = [[key, _content(value) or value] for key, _, value in (word.partition("=") for word in head.split(","))]
        return record.digest_json([knobs, _content(file) or file])
    match = _FUNCTION.fullmatch(text)
    if match and (found := _code(match[1])):
        return record.digest_json([text, found])
    if not text.startswith(("/", package.SCHEME)) or "\0" in text:
        return None
    place = Path(package.resolve(text))
    if place.is_dir():
        return code.tree(place, "*")
    if not place.is_file():
        return None
    named = _named(place) if place.suffix in (".yaml", ".yml") else []
    return record.digest_json([place.suffix, *map(record.digest_file, [place, *_beside(place)]), *named])


def _named(text: Path) -> list[str]:
    """Digests of the files and folders that a YAML file names, such as those of a set of data."""
    import yaml

    try:
        known = list(strings(yaml.safe_load(text.read_text())))
    except (yaml.YAMLError, ValueError, OSError, RecursionError):
        return []  # the step itself says what is wrong with it
    return [found for word in known if word and (found := _of_word(word))]


def _of_word(word: str) -> str | None:
    """Digest of what a word in a YAML file names; what a YAML file named there names in turn is not followed."""
    try:
        if not word.endswith((".yaml", ".yml")):
            return _content(word) or _content(str(Path(word).absolute()))
        return record.digest_file(word) if Path(word).is_file() else None
    except OSError:
        return None  # longer than a name may be


def _beside(model: Path) -> list[Path]:
    """The files that hold a model's weights."""
    if model.suffix == ".xml":
        return [file for file in (model.with_suffix(".bin"),) if file.is_file()]
    if model.suffix != ".onnx":
        return []
    import onnx
    from google.protobuf.message import DecodeError

    from convkit.compress.sources import onnx as source

    try:
        proto = onnx.load(model, load_external_data=False)
    except DecodeError:
        return []  # the step itself says what is wrong with it
    names = {
        entry.value for tensor in source.external(proto) for entry in tensor.external_data if entry.key == "location"
    }
    return sorted(file for name in names if (file := model.parent / name).is_file())


def _code(module: str) -> str | None:
    """Digest of a module's file, or of all files of a package, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    origin = Path(spec.origin)
    return code.tree(origin.parent, "*.py") if spec.submodule_search_locations else record.digest_file(origin)


def _whole(folder: Path) -> bool:
    """Every file that the folder's manifest names is there and unchanged."""
    try:
        files = json.loads((folder / record.MANIFEST).read_text())["files"]
        return all(record.digest_file(folder / name) == found for name, found in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
