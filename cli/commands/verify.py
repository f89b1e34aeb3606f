"""Check that engines compute what the network means, layer by layer on request.

The first network is simulated in torch, a quantized one in the integer arithmetic of its engine; the second, by default
the same, runs on each engine. Outputs, metrics and layers are held against tolerances; exit 1 when one is missed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show, values
from convkit.compress.errors import ConvkitError, VerdictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from convkit.compress.data import Data, DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.runtimes.parity.checks import Tolerance
    from convkit.runtimes.parity.pair import Pair
    from convkit.runtimes.session import Options

DEFAULT_ENGINES = ("eager", "onnxruntime", "openvino")
_RANDOM_SAMPLES = 4


@click.command
@click.argument("reference", metavar="A")
@click.argument("candidate", metavar="[B]", required=False)
@click.option(
    "--engines",
    metavar="NAME,...",
    help="Engines that run B.  [default: eager, onnxruntime and openvino, as installed; of --plan, its target's]",
)
@click.option("--layers", is_flag=True, help="Compare inner tensors too: the worst, and the first that departs.")
@click.option(
    "--tolerance",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _context, _option, values: options.assignments(values),
    help="Replace a tolerance: relative, sqnr, loss, codes, end_to_end, metric; see below.",
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Compare this score too, such as top1.")
@click.option(
    "--plan",
    type=values.WORD,
    metavar="FILE",
    help="Run B with the engine's knobs of this plan.yaml, on its target's engine.",
)
@options.data(what="Samples to compare on (random ones without)")
@options.network
@options.threads
@options.seed
@options.json
def verify(
    *,
    reference: str,
    candidate: str | None,
    engines: str | None,
    layers: bool,
    tolerance: dict[str, Any],
    metrics: Sequence[str],
    plan: str | None,
    data: DataRef | None,
    network: Callable[[str], ModelRef],
    threads: int,
    seed: int,
    as_json: bool,
) -> None:
    """Check that engines compute what the network means.

    A is simulated in torch, a quantized network in the integer arithmetic of its engine; B, by default A itself, runs
    on each engine. One file: does the engine compute it? Two, in float and quantized: how much noise did quantization
    add? Exit 1 where a tolerance is missed: --layers names the first layer that departs.

    \b
    Examples:
      convkit verify out/model.onnx
      convkit verify out/model.onnx --layers --data photos/ --metric top1
      convkit verify models.unet:UNet out/model.onnx --weights unet.safetensors --shape x:Nx3x256x256
      convkit verify net.onnx out/model.onnx --tolerance loss=15 --json
      convkit verify out/model.onnx --plan out/plan.yaml

    \b
    Tolerances:
      relative    largest difference of a float tensor, over its largest value   0.0001
      sqnr        dB, outputs of a quantized network on two engines              20
      loss        dB, outputs of a float network and its quantized form          10
      codes       equal integer codes of a layer, given the same inputs          0.999
      end_to_end  equal integer codes, each side on its own (ONNX Runtime)       0.99
      metric      difference of a metric, in its unit                            0.2

    A layer in float is rounded in an order that is each engine's own, and one bit may move codes behind it: there
    end_to_end is told and fails nothing; codes, layer by layer, stays a limit everywhere.
    """
    from convkit.cli import batches, checks
    from convkit.compress import data as data_sets
    from convkit.runtimes.parity import compare

    limits = _tolerance(tolerance)
    ran, lowered, engine = _planned(plan, threads)
    names = _engines(engines or engine)
    sizes = data_sets.shapes(data) if data else {}
    refs = [dataclasses.replace(network(path), sizes=sizes) for path in filter(None, (reference, candidate))]
    with _pair(refs, lowered) as pair:
        samples = _samples(pair, data, seed)
        words = f"comparing on {len(samples)} samples"
        with batches.indices_in_range(pair.candidate), show.progress(words) as say:
            found = compare.compare(
                pair,
                samples,
                names,
                limits,
                layers=layers,
                metric=metrics,
                options=ran,
                progress=lambda share: say(f"{share:.0%}"),
            )
    if as_json:
        show.json(found.as_dict())
    else:
        checks.table(found)
    if not found.passed:
        raise VerdictError(checks.miss(found))


PART = verify


def _planned(path: str | None, threads: int) -> tuple[Options, Callable[[Model], Model] | None, str | None]:
    """How engines run B, what simulates their float precision where it is not float32, and the plan's engine."""
    from convkit.cli import precisions
    from convkit.compress import plan as plans
    from convkit.compress import target as targets
    from convkit.runtimes.session import Options
    from convkit.runtimes.session.knobs import turned

    if path is None:
        return Options(threads), None, None
    plan = plans.read(path)
    target = targets.load(plan.target)
    ran = turned(Options(threads), target.engine, plan.engine)
    precisions.check(plan.engine, target.engine)
    lowers = precisions.format_of(ran.precision) != precisions.F32.floating.weight
    return ran, (lambda model: precisions.simulated(model, target, plan.engine)) if lowers else None, target.engine


def _tolerance(given: dict[str, Any]) -> Tolerance:
    from convkit.runtimes.parity.checks import Tolerance

    known = [field.name for field in dataclasses.fields(Tolerance)]
    for name, value in given.items():
        if name not in known:
            raise ConvkitError(f"no tolerance is called {name!r}", hint=f"there is: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConvkitError(f"tolerance {name} is {value!r}", hint="give a number")
    return Tolerance(**{name: float(value) for name, value in given.items()})


def _engines(words: str | None) -> list[str]:
    """The engines asked for, each checked to be here; without any, those that can open ONNX files and are here."""
    from convkit.compress import parts
    from convkit.compress.errors import NotAvailableError

    if words:
        names = [name.strip() for name in words.split(",")]
        for name in names:
            parts.load("runtimes", name).version()
        return names
    found = []
    for name in DEFAULT_ENGINES:
        try:
            parts.load("runtimes", name).version()
        except NotAvailableError as error:
            show.note(f"without {name}: {error}")
        else:
            found.append(name)
    return found


@contextlib.contextmanager
def _pair(refs: Sequence[ModelRef], lowered: Callable[[Model], Model] | None) -> Iterator[Pair]:
    """Both networks; B is written as ONNX for the engines unless it is such a file, and gone when the block ends."""
    from convkit.compress import model as models
    from convkit.runtimes.parity.pair import Pair

    loaded = [models.load(ref) for ref in refs]
    if refs[-1].path.endswith(".onnx"):
        yield Pair(loaded[0], loaded[-1], refs[-1].path, lowered)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = _exported(loaded[-1], Path(folder))
        yield Pair(loaded[0], loaded[-1], str(path), lowered)


def _exported(model: Model, folder: Path) -> Path:
    from convkit.compress import record
    from convkit.export import artifact
    from convkit.export.onnx import to_onnx

    path = folder / record.MODEL
    artifact.write_onnx(to_onnx(model), path)
    return path


def _samples(pair: Pair, ref: DataRef | None, seed: int) -> Data:
    """The user's samples, or random ones of the sample shapes, a few where the batch is free."""
    from convkit.compress import data, record
    from convkit.compress.model import sample_inputs

    inputs = pair.reference.inputs
    if ref is not None:
        return data.load(ref, inputs)
    free = pair.reference.batch is None
    specs = [
        dataclasses.replace(spec, sample=(_RANDOM_SAMPLES, *spec.sample[1:])) if free and spec.shape else spec
        for spec in inputs
    ]
    arrays = {name: tensor.numpy() for name, tensor in sample_inputs(specs, seed).items()}
    return data.Data(arrays, None, record.digest_arrays(arrays))
