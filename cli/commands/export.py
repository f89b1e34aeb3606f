"""Write a network as the file that an engine runs.

Names of layers and tensors are kept, and the same network gives the same bytes. The engine that the file is meant for
must open it, else nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import engine_options, export_report, options, original, show, values
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import onnx

    from convkit.compress.data import DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.plan import Plan
    from convkit.compress.target import Target
    from convkit.export.artifact import Artifact
    from convkit.export.exporter import Exporter
    from convkit.export.tensorrt.asserted import Asserted
    from convkit.export.tensorrt.request import Settings


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
@engine_options.engine
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
    asked: dict[str, Any],
    threads: int,
    seed: int,
    output: str,
    as_json: bool,
) -> None:
    """Write a network as the file that an engine runs.

    For TensorRT the engine is built as well, and every layer must run in what the plan says, else exit 1. An ONNX file
    without a plan or an opset is built as it is, whatever operators it has.

    \b
    Examples:
      convkit export net.pt2 -o out/
      convkit export models.unet:UNet --weights unet.safetensors --shape x:Nx3x256x256 --target openvino -o out/
      convkit export net.onnx --plan plan.yaml --target onnxruntime-cpu --data calib.npz -o out/
      convkit export net.onnx --plan plan.yaml --data calib.npz --target trt-rtx --sm 89 -o out/
      convkit export net.pt2 --target trt-rtx --sm 89 --kernel all -o out/
    """
    from dataclasses import replace
    from functools import partial

    import torch

    from convkit.compress import data as data_sets
    from convkit.compress import model as models
    from convkit.compress import plan as plans
    from convkit.export import exporter

    place.check(output, plan)
    decided = plans.read(plan) if plan else None
    writer, found = exporter.find(target)
    build, kernels = engine_options.settings(asked, writer, target), engine_options.kernels(asked)
    engine_options.check_cache(build, output)
    as_it_is = writer.builds is not None and decided is None and opset is None
    taken = original.as_it_is(model) if as_it_is else None
    if taken is not None:
        write, digests = partial(_taken, writer, taken[0]), {"model": taken[1]}
    else:
        source = models.load(replace(model, sizes=data_sets.shapes(data)) if data else model)
        digests = {"model": source.digest}
        if decided is not None:
            torch.set_num_threads(threads)  # sums of floats depend on it, in their last bits
            source, used = _applied(source, decided, found, data, seed)
            digests |= used
        unchanged = decided is not None and not decided.changes and opset is None
        own = original.own_bytes(model.path, source) if unchanged else None
        write = (
            partial(_kept, writer, own)
            if own
            else partial(_made, writer, source, _opset(opset, found), asked=opset is not None)
        )
    report = _write(write, writer, output, _Context(target, digests, decided, build, kernels, seed, found))
    export_report.tell(report, output, as_json=as_json)
    export_report.check(report)


PART = export


@dataclass(frozen=True, slots=True)
class _Context:
    """What the manifest says beside the artifact; `build`: what is asked of the engine, where one is built."""

    target: str
    digests: dict[str, str]
    plan: Plan | None
    build: Settings | None
    kernels: tuple[str, ...] = ()
    seed: int = 0
    means: Target | None = None
    """What formats mean, where another target is exported for than the plan names."""


def _opset(asked: int | None, target: Target | None) -> int:
    from convkit.compress.sources._onnx_file import NEWEST
    from convkit.export.exporter import OPSET
    from convkit.export.onnx import OLDEST_OPSET

    if asked is not None and not OLDEST_OPSET <= asked <= NEWEST:
        raise ConvkitError(f"opset {asked} is none that convkit writes", hint=f"give {OLDEST_OPSET} to {NEWEST}")
    return asked or (target.opset if target is not None else OPSET)


def _applied(
    model: Model, plan: Plan, target: Target | None, ref: DataRef | None, seed: int
) -> tuple[Model, dict[str, str]]:
    """The model as planned, and the digests of what that took. The plan's own target says what its formats mean.

    A plan that quantizes nothing leaves the model as it is, as `convkit quantize` does. The samples are those that
    `convkit quantize` shows to the plan's methods, so that its plan gives its very file again.
    """
    from convkit.cli import batches
    from convkit.compress import apply, data, fitting
    from convkit.compress import target as targets

    if target is not None and target.name != plan.target:
        raise ConvkitError(f"the plan is for {plan.target}, not {target.name}", hint=f"export --target {plan.target}")
    samples, probe, digests = None, None, {"plan": plan.digest}
    if ref is not None:
        loaded = data.load(ref, model.inputs)
        digests["data"] = loaded.digest
        calibration, _ = batches.split(loaded, seed)
        found = batches.calibration_of(calibration, batches.batching(model, calibration))
        samples, probe = found.seen_by(plan.methods), len(found.probe)
    if not plan.changes:
        fitting.check_model(model, plan)
        return model, digests
    return apply.apply(model, plan, target or targets.load(plan.target), samples, probe), digests


def _write(write: Callable[[Path], Artifact], writer: Exporter, output: str, context: _Context) -> dict[str, Any]:
    from convkit.compress import plan as plans

    with record.output_folder(output) as folder:
        written, taken = _with_kernels(write(folder), context.kernels)
        report = export_report.report(written, _opened(writer, written.path))
        if taken:
            report["kernels"] = taken
        digests, facts = {**context.digests, "artifact": written.digest}, {}
        if context.build is not None:
            asserted = _built(writer, written.path, context)
            record.write_bytes(folder / export_report.ENGINE, asserted.built.engine)
            report["engine"] = asserted.as_dict()
            digests["engine"] = report["engine"]["digest"]
            facts = {"plugins": report["engine"]["plugins"]} if context.build.plugins else {}
        told: dict[str, Any] = {"target": context.target, "seed": context.seed, **facts}
        if context.plan is not None:
            record.write_text(folder / record.PLAN, plans.dump(context.plan))
        place.describe(folder, report, digests=digests, **told)
    return report


def _built(writer: Exporter, path: Path, context: _Context) -> Asserted:
    """The engine, held against the plan where there is one, else against the file."""
    from convkit.compress import promotion
    from convkit.compress import target as targets
    from convkit.export.tensorrt.asserted import build_and_assert

    assert context.build is not None  # the caller looked  # noqa: S101
    plan = context.plan
    asked = None if plan is None else promotion.kernels(plan, context.means or targets.load(plan.target))
    with show.progress("export") as say:
        say(f"building an engine with {writer.builds}")
        return build_and_assert(str(writer.builds), path, context.build, asked)


def _with_kernels(written: Artifact, names: Sequence[str]) -> tuple[Artifact, dict[str, str]]:
    """The file with what kernels compute as nodes of theirs, and which kernel's each is."""
    if not names:
        return written, {}
    from dataclasses import replace

    import onnx

    from convkit.export import artifact, kernels

    model = onnx.load(written.path)
    taken = kernels.with_kernels(model, names)
    return replace(written, digest=artifact.write_onnx(model, written.path)), taken


def _made(writer: Exporter, model: Model, opset: int, folder: Path, *, asked: bool = False) -> Artifact:
    """`asked`: the user wants that opset, which may not have all formats."""
    if not asked:
        return writer.write(model, folder, opset)
    with _checked(f"opset {opset} has not all that the network takes", "export in a later opset"):
        return writer.write(model, folder, opset)


@contextlib.contextmanager
def _checked(what: str, hint: str) -> Iterator[None]:
    """What ONNX's checker says of a file that the user has a hand in, as the user's error."""
    import onnx

    try:
        yield
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConvkitError(f"{what}: {' '.join(str(error).split())[:300]}", hint=hint) from error


def _taken(writer: Exporter, model: onnx.ModelProto, folder: Path) -> Artifact:
    """An ONNX file as it is, perhaps with layers of the user's own: no Model is made of it."""
    from convkit.export import artifact

    path = folder / record.MODEL
    with _checked("the file contradicts itself", "correct the shapes that it states, or leave them out"):
        return artifact.Artifact(path, artifact.write_onnx(model, path), str(writer.builds))


def _kept(writer: Exporter, own: bytes, folder: Path) -> Artifact:
    """The user's bytes, where they are the artifact."""
    from convkit.export import artifact

    path = folder / record.MODEL
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
