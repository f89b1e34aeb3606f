"""What a training keeps beside its output until that stands, so that it goes on where it was killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.compress import record, writing
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoint:
    """Tensors and JSON of the last epoch that is done; the same for the same `key` only. It is gone on with where that
    is asked for (`resume`)."""

    def __init__(self, output: str, key: Sequence[object], *, resume: bool) -> None:
        final = record.final_place(output)
        self.folder = final.with_name(f".{final.name}.training")
        self._key, self._resume = record.digest_json([str(one) for one in key]), resume
        self._output, self._lock = output, -1

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept, to go on with; None where nothing was. Raises ConvkitError for that of another training."""
        from safetensors.torch import load_file

        told = self.folder / "state.json"
        if not self._resume or not told.is_file():
            return None
        self._claim()
        text = json.loads(told.read_text(encoding="utf-8"))
        if text["key"] != self._key:
            raise ConvkitError(
                f"{self.folder} is of another training", hint="give what it was begun with, or remove it"
            )
        tensors = self.folder / text["tensors"]
        return (load_file(str(tensors)), text["state"]) if tensors.is_file() else None

    def keep(self, epoch: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Keep this epoch in place of the one before; killed between the two, that one stays."""
        from safetensors.torch import save

        name = f"epoch{epoch}-{self._key[:12]}.safetensors"  # another training's epoch never stands in its place
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        record.write_bytes(self.folder / name, save(dict(tensors)))
        record.write_json(self.folder / "state.json", {"key": self._key, "tensors": name, "state": dict(state)})
        for old in self.folder.glob("epoch*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def _claim(self) -> None:
        """Keep other trainings out as long as this process lives; those of one crew have its first keep all."""
        if self._lock >= 0 or os.environ.get("RANK", "0") != "0":
            return
        lock = writing.claimed(self.folder / "lock")
        if lock is None:
            raise ConvkitError(
                f"another training writes to {self._output}", hint="wait for it, or give another --output"
            )
        self._lock = lock

    def done(self) -> None:
        """The output stands. What says that there is anything goes first, for a removal that is killed."""
        (self.folder / "state.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
