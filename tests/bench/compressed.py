"""Smaller networks: what `convkit shrink` and `factorize` make beside torch-pruning, AIMET's SVD and Tucker's form.

Two networks for CIFAR-10, trained here once, and EfficientNet-Lite0. Nobody trains behind, but where it is said: peers
get new statistics of norms, convkit fits layers to what they read; all on the same images, all timed side by side in
ONNX Runtime.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convkit.cli import figures, show
from convkit.compress import plan as plans
from convkit.compress import record
from convkit.compress.data import Data
from convkit.compress.training import augment, loop, supervised
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Settings, measure
from convkit.runtimes.session import Options
from tests.bench import cases, cifar, environment, networks, packages, product, zero_shot
from tests.bench.cifar_networks import MEAN, NETWORKS, SPREAD
from tests.bench.comparison import THREADS
from tests.bench.limits import Line

FLOAT = "float"
SCHEDULE = loop.Schedule(epochs=12, batch=128, rate=4e-3)
IMAGES = 512
"""That all of them are fitted or calibrated on."""
LATENCIES = ("<=0.85x", "<=0.7x", "<=0.55x")
SHARES = {"torch_pruning": (0.8, 0.65, 0.5), "tucker": (0.6, 0.4, 0.25), "aimet_svd": (0.75, 0.5, 0.35)}
ENVIRONMENTS = {"aimet_svd": "aimet_torch"}
"""Of peers that need one of their own; the others share that called compression."""
LITE = "lite0"
GENTLE = {"torch_pruning": (0.97, 0.9, 0.8), "tucker": (), "aimet_svd": (0.95, 0.9, 0.75)}
"""Shares of Lite0, which has little to spare, and no convolution that Tucker's form is for."""
ZERO_SHOT = 1000
"""CIFAR's images that Lite0 is asked for what float says of them."""
TRAINED = (("shrink", "<=0.7x"), ("factorize", "<=0.7x"))
LEARNS, EPOCHS, RATE = 50_000, 10, 3e-3
"""Of the network with a goal, what is distilled, on how many images, how long. No peer trains, so these stand beside
what does not."""
GOAL = "vgg"
DISTILLED = "distilled"
ALIKE = {"shrink": ("torch_pruning",), "factorize": ("tucker", "aimet_svd")}
"""Who does what each command does."""
SECONDS = 6.0
"""Of timing for each file."""
FASTER, LOST = 0.7, 1.0
"""Of the VGG: time over float's, and points of accuracy that may go for it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network: its file in float, weights for peers, data to fit and to be scored on, by `metric`."""

    name: str
    model: Path
    weights: Path
    data: Path
    judged: Data
    metric: str
    shares: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Made:
    """One file: who made it, its time over float's, bytes, and percent of the test images that it gets right or, of
    Lite0, classes as float does; there also of CIFAR's images.
    """

    name: str
    by: str
    ratio: Interval
    size: int
    score: float
    zero_shot: float | None = None


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """For each network: none of convkit's is beaten in both time and accuracy by who does the same, and nobody's is out
    of reach of what is not trained either; of the VGG, the goal."""
    report["compressed"] = {}
    for name in (*NETWORKS, LITE):
        about = subject(name, say, output / name)
        found = run(about, say, output / name)
        report["compressed"][name] = [asdict(one) for one in found]
        rows = [
            [
                one.name,
                figures.ratio(one.ratio),
                f"{one.size / 1e3:.0f} kB",
                f"{one.score:.2f}",
                _percent(one.zero_shot),
            ]
            for one in found
        ]
        show.table([name, "time", "size", about.metric, "zero-shot"], rows)
        peers, own = ([one for one in found if (one.by in SHARES) == is_peer] for is_peer in (True, False))
        for one in own[1:]:
            alike = [peer for peer in peers if peer.by in ALIKE[one.name.split()[0]]]
            better = [peer for peer in alike if peer.score > one.score and peer.ratio.high < one.ratio.low]
            yield Line(f"{name}, {one.name}", "peers that are faster and better", point(len(better)), "<=", 0, "")
        untrained = [one for one in own if not one.name.endswith(DISTILLED)]
        for peer in peers:
            beaten = [one for one in untrained if one.score >= peer.score and one.ratio.low <= peer.ratio.high]
            best = max((one.score for one in beaten), default=0.0) - peer.score
            yield Line(f"{name}, {peer.name}", "best in no more time, less it", point(best), ">=", 0, "%")
        if name == GOAL:
            kept = [one for one in own if one.score >= own[0].score - LOST]
            best = min(kept, key=lambda one: one.ratio.value)
            yield Line(name, f"time over float's at {LOST:g} point less", best.ratio, "<=", FASTER, "x")
        if name == LITE:
            split = sum(_depthwise_split(output / name / _folder("factorize", latency)) for latency in LATENCIES)
            yield Line(name, "depthwise layers that pay as chains", point(split), "<=", 0, "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _folder(command: str, latency: str) -> str:
    return f"{command}_{latency.strip('<=')}"


def _depthwise_split(folder: Path) -> int:
    """Depthwise layers that `convkit factorize` wrote as chains."""
    return sum("depthwise" in name for name in plans.read(folder / "plan.yaml").forms)


def subject(name: str, say: Callable[[str], None], output: Path) -> Subject:
    """The network `name` with its data, of which `output` gets what is fitted on."""
    output.mkdir(parents=True, exist_ok=True)
    if name == LITE:
        case = cases.load(LITE)
        np.savez(output / "data.npz", **case.calibration)  # type: ignore[arg-type]
        weights = networks.weights(LITE)
        return Subject(name, case.model, weights, output / "data.npz", case.evaluation, "agreement", GENTLE)
    weights = trained(name, say)
    images, labels = cifar.images()
    arrays = {"input": planes(images)}
    judged = Data(arrays, labels, record.digest_arrays(arrays))
    model = exported(name, weights, output / "float.onnx")
    return Subject(name, model, weights, calibration(output / "data.npz"), judged, "top1", SHARES)


def run(subject: Subject, say: Callable[[str], None], output: Path) -> list[Made]:
    """Every file of the network."""
    name = subject.name
    files = {FLOAT: (FLOAT, subject.model)}
    for peer, shares in subject.shares.items():
        for share in shares:
            say(f"{name}: {peer} to {share:.0%}")
            file = output / f"{peer}_{share}.onnx"
            python = environment.python(ENVIRONMENTS.get(peer, "compression"))
            words = [python, "-m", "tests.bench.compressing", peer, name, subject.weights]
            _process([*words, subject.data.absolute(), share, file.absolute()])
            files[f"{peer} {share:.0%}"] = peer, file
    for command in ("shrink", "factorize"):
        for latency in LATENCIES:
            say(f"{name}: convkit {command} {latency}")
            folder = output / _folder(command, latency)
            given = [str(subject.model), "--data", str(subject.data), "--max-drop", "100", "--min-sqnr", "0"]
            try:
                product.run([command, *given, "--latency", latency, "-o", str(folder)])
            except product.FailedError as failure:
                if failure.code != 1:
                    raise
            files[f"{command} {latency}"] = "convkit", folder / "model.onnx"
    for command, latency in TRAINED if name == GOAL else ():
        made = f"{command} {latency}"
        say(f"{name}: what convkit {made} left is distilled")
        folder = output / f"{_folder(command, latency)}_distilled"
        files[f"{made}, {DISTILLED}"] = "convkit", _distilled(subject, files[made][1], folder)
    say(f"{name}: {len(files)} files are timed")
    return measured(files, subject, say)


def _distilled(subject: Subject, model: Path, folder: Path) -> Path:
    """The network `model` after `convkit distill` on images that it was trained on, without their labels."""
    learns = folder.with_name("learns.npz")
    np.savez(learns, input=training().arrays["input"][:LEARNS])
    how = ["--teacher", str(subject.model), "--data", str(learns), "--augment", "flip,shift", "--norms"]
    how += ["--epochs", str(EPOCHS), "--batch", "128", "--rate", str(RATE)]
    product.run(["distill", str(model), *how, "-o", str(folder)])
    return folder / "model.onnx"


def calibration(file: Path) -> Path:
    """Images that all are fitted or calibrated on, in `file`."""
    learns = training()
    rows = torch.randperm(len(learns), generator=torch.Generator().manual_seed(0))[:IMAGES].numpy()
    np.savez(file, input=learns.arrays["input"][rows])
    return file


def trained(name: str, say: Callable[[str], None]) -> Path:
    """The weights of the network `name`, from the cache, or trained in some twenty minutes."""
    asked = record.digest_json(
        [name, asdict(SCHEDULE), record.digest_file(Path(__file__).with_name("cifar_networks.py"))]
    )
    file = packages.CACHE / "networks" / f"cifar_{name}_{asked[:12]}.safetensors"
    if not file.is_file():
        from safetensors.torch import save

        say(f"{name}: trained on CIFAR-10")
        torch.manual_seed(0)
        network = NETWORKS[name]()
        both = augment.chained(("flip", "shift"))
        supervised.train(network, training(), SCHEDULE, "cross_entropy", _said(name, say), both)
        tensors = {key: tensor.detach().contiguous() for key, tensor in network.state_dict().items()}
        record.write_bytes(file, save(tensors))
    return file


def _said(name: str, say: Callable[[str], None]) -> Callable[[int, float], None]:
    return lambda epoch, loss: say(f"{name}: epoch {epoch}, loss {loss:.3f}")


def training() -> Data:
    images, labels = cifar.training()
    return Data({"input": planes(images)}, labels, "")


def planes(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] of bytes as the networks take them."""
    return np.ascontiguousarray(((images.astype(np.float32) - MEAN) / SPREAD).transpose(0, 3, 1, 2))


def exported(name: str, weights: Path, file: Path) -> Path:
    """The network `name` in float, an ONNX file."""
    from convkit.compress.model import ModelRef, parse_shape
    from convkit.compress.sources import factory
    from convkit.export.onnx import to_onnx

    shape = dict([parse_shape("input:Nx3x32x32")])
    ref = ModelRef(f"tests.bench.cifar_networks:{NETWORKS[name].__name__}", str(weights), shapes=shape)
    network = factory.build(ref)
    file.write_bytes(to_onnx(factory.from_module(network, ref)).SerializeToString(deterministic=True))
    return file


def _process(words: list[Any]) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise environment.RefusedError((done.stderr.strip().splitlines() or ["no message"])[-1])


def measured(files: Mapping[str, tuple[str, Path]], subject: Subject, say: Callable[[str], None]) -> list[Made]:
    """Files by name and by whom, timed side by side and scored."""
    options = Options(threads=THREADS)
    candidates = [Candidate(name, "onnxruntime", str(file), options) for name, (_, file) in files.items()]
    settings = Settings(budget=SECONDS * len(files), batch=1, metrics=(subject.metric,))
    found = measure(candidates, FLOAT, subject.judged, settings)
    kept = _zero_shot(candidates, say) if subject.name == LITE else {}
    return [
        Made(
            name,
            by,
            found[name].ratios.get("p50", point(1.0)),
            file.stat().st_size,
            found[name].metrics[subject.metric],
            kept.get(name),
        )
        for name, (by, file) in files.items()
    ]


def _zero_shot(candidates: Sequence[Candidate], say: Callable[[str], None]) -> dict[str, float]:
    """Percent of images to which each gives the first one's class."""
    found: dict[str, np.ndarray] = {}
    for one in candidates:
        say(f"{LITE}: zero-shot, {one.name}")
        found[one.name] = cifar.predictions(zero_shot.scores(one, ZERO_SHOT))
    of_float = found[candidates[0].name]
    return {name: float((classes == of_float).mean() * 100) for name, classes in found.items()}
