"""Plans made into networks and files, all from one prepared model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli.work import Work
from convkit.compress import record

if TYPE_CHECKING:
    from convkit.compress.calibration import Calibration
    from convkit.compress.model import Model
    from convkit.compress.plan import Plan
    from convkit.compress.target import Target

_LEARNED, _CORRECTED = "learned_round", "bias_correction"


@dataclass(frozen=True, slots=True)
class Builder:
    """A `model` prepared by the methods of the plans that are built of it; files go into `folder`."""

    model: Model
    target: Target
    data: Calibration
    folder: Path
    work: Work = field(default_factory=Work)
    engine: str = ""
    """What runs the files, where that is not the target's own."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _latest: dict[str, Model] = field(default_factory=dict)
    """The last network that was made, by its plan: it is simulated, then written."""

    def complete(self, plan: Plan) -> Plan:
        """`plan` with a range for every tensor that it quantizes."""
        from convkit.compress import calibration

        return calibration.complete(self.model, self.target, plan, self.data)

    def network(self, plan: Plan) -> Model:
        """The simulation of `plan`, which is complete."""
        from convkit.compress.apply import apply_prepared

        digest = plan.digest
        if digest not in self._latest:
            self._latest.clear()
            self._latest[digest] = apply_prepared(self.model, plan, self.target, self.data.seen_by(plan.methods))
        return self._latest[digest]

    def file(self, network: Model) -> Path:
        """`network` as an ONNX file of its own."""
        from convkit.export import exporter

        self.work.counts["builds"] += 1
        path = self.folder / f"build{next(self._numbers)}.onnx"
        proto = exporter.of_engine(self.engine or self.target.engine).proto(network, self.target.opset)
        record.write_bytes(path, bytes(proto.SerializeToString(deterministic=True)))
        return path


def with_learned_rounding(plan: Plan) -> Plan:
    """`plan` with learned rounding, which leaves bias correction nothing to do."""
    before = tuple(name for name in plan.methods if name not in {_LEARNED, _CORRECTED})
    return replace(plan, methods=(*before, _LEARNED))
