"""Write a network as the file that an engine runs.

Names of layers and tensors are kept, and the same network gives the same bytes. The engine that the file is meant for
must open it, else nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, original, show, values
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.compress.data import DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.plan import Plan
    from convkit.compress.target import Target
    from convkit.export.artifact import Artifact
    from convkit.export.exporter import Exporter

SCHEMA_VERSION = 1


@click.command
@options.model
@click.option(
    "--target",
    type=values.Part("export/engines"),
    default="onnx",
    show_default=True,
    metavar="NAME|FILE",
    help="onnx, onnxruntime, openvino, or a target of `convkit list targets`.",
)
@click.option("--plan", type=values.WORD, metavar="FILE", help="Apply this plan.yaml first.")
@options.data(what="The plan's calibration samples, for methods that need them")
@click.option("--opset", type=click.IntRange(1), help="ONNX opset.  [default: the target's, else 21]")
@options.threads
@options.seed
@options.output
@options.json
def export(
    *,
    model: ModelRef,
    target: str,
    plan: str | None,
    data: DataRef | None,
    opset: int | None,
    threads: int,
    seed: int,
    output: str,
    as_json: bool,
) -> None:
    """Write a network as the file that an engine runs.

    \b
    Examples:
      convkit export net.pt2 -o out/
      convkit export models.unet:UNet --weights unet.safetensors --target openvino -o out/
      convkit export net.onnx --plan plan.yaml --target onnxruntime-cpu --data calib.npz -o out/
    """
    from dataclasses import replace

    import torch

    from convkit.compress import data as data_sets
    from convkit.compress import model as models
    from convkit.compress import plan as plans
    from convkit.export import exporter

    place.check(output, plan)
    decided = plans.read(plan) if plan else None
    writer, found = exporter.find(target)
    source = models.load(replace(model, sizes=data_sets.shapes(data)) if data else model)
    digests = {"model": source.digest}
    if decided is not None:
        torch.set_num_threads(threads)  # sums of floats depend on it, in their last bits
        source, used = _applied(source, decided, found, data, seed)
        digests |= used
    unchanged = decided is not None and not decided.layers and opset is None
    own = original.own_bytes(model.path, source) if unchanged else None
    report = _write(source, writer, _opset(opset, found), output, _Context(target, digests, decided, own))
    _show(report, output, as_json=as_json)


PART = export


class _Context:
    """What the manifest says beside the artifact; `own`: the user's bytes, where they are the artifact."""

    def __init__(self, target: str, digests: dict[str, str], plan: Plan | None, own: bytes | None) -> None:
        self.target, self.digests, self.plan, self.own = target, digests, plan, own


def _opset(asked: int | None, target: Target | None) -> int:
    from convkit.export.exporter import OPSET

    return asked or (target.opset if target is not None else OPSET)


def _applied(
    model: Model, plan: Plan, target: Target | None, ref: DataRef | None, seed: int
) -> tuple[Model, dict[str, str]]:
    """The model as planned, and the digests of what that took. The plan's own target says what its formats mean.

    A plan that quantizes nothing leaves the model as it is, as `convkit quantize` does. The samples are those that
    `convkit quantize` shows to the plan's methods, so that its plan gives its very file again.
    """
    from convkit.cli import batches
    from convkit.compress import apply, data
    from convkit.compress import target as targets

    if target is not None and target.name != plan.target:
        raise ConvkitError(f"the plan is for {plan.target}, not {target.name}", hint=f"export --target {plan.target}")
    samples, digests = None, {"plan": plan.digest}
    if ref is not None:
        loaded = data.load(ref, model.inputs)
        digests["data"] = loaded.digest
        calibration, _ = batches.split(loaded, seed)
        samples = batches.calibration_of(calibration, batches.batching(model, calibration)).seen_by(plan.methods)
    if not plan.layers:
        apply.check_model(model, plan)
        return model, digests
    return apply.apply(model, plan, target or targets.load(plan.target), samples), digests


def _write(model: Model, writer: Exporter, opset: int, output: str, context: _Context) -> dict[str, Any]:
    from convkit.compress import plan as plans
    from convkit.export import artifact

    with record.output_folder(output) as folder:
        written = _kept(writer, folder, context.own) if context.own else writer.write(model, folder, opset)
        report = _report(written, _opened(writer, written.path))
        manifest = record.manifest(
            command=options.command_line(),
            digests={**context.digests, "artifact": written.digest},
            target=context.target,
        )
        artifact.describe(folder, manifest, report, plans.dump(context.plan) if context.plan else None)
    return report


def _kept(writer: Exporter, folder: Path, own: bytes) -> Artifact:
    from convkit.export import artifact

    path = folder / artifact.MODEL
    record.write_bytes(path, own)
    return artifact.Artifact(path, record.digest_bytes(own), writer.opens or "")


def _opened(writer: Exporter, path: Path) -> dict[str, str]:
    """Engine and version that opened the file; raises ConvkitError where it refuses."""
    if writer.opens is None:
        return {}
    from convkit.compress import parts
    from convkit.runtimes.session import open_session

    open_session(writer.opens, str(path)).close()
    return {writer.opens: parts.load("runtimes", writer.opens).version()}


def _report(written: Artifact, opened: dict[str, str]) -> dict[str, Any]:
    from collections import Counter

    import onnx

    model = onnx.load(written.path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    return {
        "schema_version": SCHEMA_VERSION,
        "artifact": {
            "file": written.path.name,
            "digest": written.digest,
            "engine": written.engine,
            "bytes": sum(file.stat().st_size for file in written.path.parent.glob(f"{written.path.name}*")),
        },
        "opset": model.opset_import[0].version,
        "opened_by": opened,
        "operators": dict(sorted(operators.items())),
    }


def _show(report: dict[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
        return
    artifact = report["artifact"]
    show.table(
        ("operator", "nodes"), list(report["operators"].items()), totals=("total", sum(report["operators"].values()))
    )
    opened = ", ".join(f"{engine} {version}" for engine, version in report["opened_by"].items())
    show.text(f"{Path(output) / artifact['file']}: {artifact['bytes']:,} bytes, opset {report['opset']}")
    show.text(f"opened by {opened}" if opened else "checked by onnx; no engine was asked to open it")
