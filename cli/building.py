"""Plans made into networks and files, all from one prepared model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli.work import Work
from convkit.compress import parts, record
from convkit.compress.plan import TAYLOR

if TYPE_CHECKING:
    from convkit.compress.calibration import Calibration
    from convkit.compress.factoring import Chain
    from convkit.compress.model import Model
    from convkit.compress.plan import Plan
    from convkit.compress.shrinking.coupling import Coupling
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
    chains: dict[str, dict[str, Chain]] = field(default_factory=dict)
    """What may stand for convolutions of the model, as far as it was asked for."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Those that the model has, where it was made narrower."""
    importance: str = TAYLOR
    """By what channels are ranked."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _latest: dict[str, Model] = field(default_factory=dict)
    """The last network that was made, by its plan: it is simulated, then written."""
    _formed: dict[str, Model] = field(default_factory=dict)
    """The last one in forms."""
    _narrowed: dict[str, Model] = field(default_factory=dict)
    """The last one of other widths."""
    _channels: list[tuple[Coupling, Mapping[int, float]]] = field(default_factory=list)
    """How its channels are coupled, and what they are worth, once somebody asked."""

    def of(self, model: Model, widths: Mapping[str, int]) -> Builder:
        """The same for `model`, which was made narrower."""
        return Builder(
            model,
            self.target,
            self.data,
            self.folder,
            self.work,
            self.engine,
            widths=widths,
            importance=self.importance,
            _numbers=self._numbers,
        )

    @property
    def channels(self) -> tuple[Coupling, Mapping[int, float]]:
        """How the model's channels are coupled, and what they are worth on the data."""
        from convkit.compress.shrinking import shrink
        from convkit.compress.shrinking.coupling import coupling

        if not self._channels:
            coupled = coupling(self.model.graph)
            # By no labels, whatever the search goes by: a plan that is applied elsewhere keeps the same channels.
            worth = shrink.worth(self.importance)
            self._channels.append((coupled, worth(self.model, coupled, self.data.probe)))
        return self._channels[0]

    def shaped(self, plan: Plan) -> Model:
        """The model with the widths and the forms of `plan`; forms are those of a model whose widths it has."""
        if dict(plan.widths) == dict(self.widths):
            return self.formed(plan.forms)
        assert not plan.forms  # noqa: S101 - they are of convolutions of that width
        return self.narrowed(plan.widths)

    def narrowed(self, widths: Mapping[str, int]) -> Model:
        """The model with families of these `widths`."""
        from convkit.compress.apply import narrowed
        from convkit.compress.shrinking import shrink

        key = record.digest_json(dict(widths))
        if key not in self._narrowed:
            self._narrowed.clear()
            self._narrowed[key] = narrowed(self.model, shrink.gone(*self.channels, widths), self.data.probe)
        return self._narrowed[key]

    def formed(self, forms: Mapping[str, str]) -> Model:
        """The model with convolutions in `forms`."""
        from convkit.compress.apply import factored

        if not forms:
            return self.model
        key = record.digest_json(dict(forms))
        if key not in self._formed:
            self._formed.clear()
            self.find({name: (text,) for name, text in forms.items()})
            chains = {name: self.chains[name][text] for name, text in forms.items()}
            self._formed[key] = factored(self.model, chains, self.data.probe)
        return self._formed[key]

    def pieces(self, name: str, form: str) -> list[str]:
        """The convolutions that the layer `name` is in `form`."""
        self.find({name: (form,)})
        return [f"{name}.{place}" for place in range(len(self.chains[name][form].pieces))]

    def find(self, forms: Mapping[str, Sequence[str]]) -> None:
        """Chains of the convolutions in all these forms, on the data."""
        from convkit.compress import factoring

        left = {
            name: [text for text in texts if text not in self.chains.get(name, ())] for name, texts in forms.items()
        }
        left = {name: texts for name, texts in left.items() if texts}
        inputs = [spec.name for spec in self.model.inputs]
        for name, found in factoring.chains(self.model.graph, inputs, self.data.probe, left).items() if left else ():
            self.chains.setdefault(name, {}).update(found)

    def complete(self, plan: Plan) -> Plan:
        """`plan` with a range for every tensor that it quantizes."""
        from convkit.compress import calibration

        return calibration.complete(self.shaped(plan), self.target, plan, self.data)

    def network(self, plan: Plan) -> Model:
        """The simulation of `plan`, which is complete."""
        from convkit.compress.apply import apply_prepared

        digest = plan.digest
        if digest not in self._latest:
            self._latest.clear()
            model = self.shaped(plan)
            self._latest[digest] = apply_prepared(model, plan, self.target, self.data.seen_by(plan.methods))
        return self._latest[digest]

    def file(self, network: Model) -> Path:
        """`network` as an ONNX file of its own."""
        self.work.counts["builds"] += 1
        path = self.folder / f"build{next(self._numbers)}.onnx"
        write(network, self.target, self.engine or self.target.engine, path)
        return path


def write(network: Model, target: Target, engine: str, path: Path) -> None:
    """The file that `engine` runs, and where that stands in for the target's own, beside it what that is to run."""
    from convkit.export import exporter

    record.write_bytes(path, exporter.of_engine(engine).bytes(network, target.opset))
    if engine != target.engine:
        record.write_bytes(beside(path), exporter.of_engine(target.engine).bytes(network, target.opset))


def beside(path: Path) -> Path:
    """Where the file for the target's own engine is, if another ran `path`."""
    return path.with_suffix(".shipped.onnx")


def shipped(path: Path) -> bytes:
    """What is shipped where `path` was measured."""
    own = beside(path)
    return (own if own.exists() else path).read_bytes()


def learns(plan: Plan) -> bool:
    """Whether a method of the plan learns, which takes longer than all else that is done to a network."""
    return any(_learns(name) for name in plan.methods)


def without_learning(plan: Plan) -> Plan:
    """`plan` with bias correction in place of what learns."""
    kept = [name for name in plan.methods if not _learns(name)]
    return replace(plan, methods=tuple(dict.fromkeys([*kept, *([_CORRECTED] if learns(plan) else [])])))


def _learns(name: str) -> bool:
    found: bool = parts.load("compress/methods", name).learns
    return found


def with_learned_rounding(plan: Plan) -> Plan:
    """`plan` with learned rounding, which leaves bias correction nothing to do."""
    before = tuple(name for name in plan.methods if name not in {_LEARNED, _CORRECTED})
    return replace(plan, methods=(*before, _LEARNED))
