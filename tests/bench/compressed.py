"""Smaller networks: what `convkit shrink` and `factorize` make beside torch-pruning and Tucker's form in tensorly.

Networks for CIFAR-10, trained here once. Nobody trains behind: torch-pruning and tensorly get new statistics of norms,
convkit fits layers to what they read; all on the same images, all timed side by side in ONNX Runtime.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convkit.cli import figures, show
from convkit.compress import record
from convkit.compress.data import Data
from convkit.compress.training import augment, supervised
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Settings, measure
from convkit.runtimes.session import Options
from tests.bench import cifar, environment, packages, product
from tests.bench.cifar_networks import MEAN, NETWORKS, SPREAD
from tests.bench.comparison import THREADS
from tests.bench.limits import Line

FLOAT = "float"
SCHEDULE = supervised.Schedule(epochs=12, batch=128, rate=4e-3)
IMAGES = 512
"""That all of them are fitted or calibrated on."""
LATENCIES = ("<=0.85x", "<=0.7x", "<=0.55x")
SHARES = {"torch_pruning": (0.8, 0.65, 0.5), "tucker": (0.6, 0.4, 0.25)}
SECONDS = 6.0
"""Of timing for each file."""
FASTER, LOST = 0.7, 1.0
"""Of the VGG: time over float's, and points of accuracy that may go for it."""


@dataclass(frozen=True, slots=True)
class Made:
    """One file: who made it, its time over float's, bytes, top-1 on the test images."""

    name: str
    by: str
    ratio: Interval
    size: int
    top1: float


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """For each network: none of convkit's is beaten in both time and accuracy; of the VGG, the goal."""
    report["compressed"] = {}
    for name in NETWORKS:
        found = run(name, say, output / name)
        report["compressed"][name] = [asdict(one) for one in found]
        rows = [[one.name, figures.ratio(one.ratio), f"{one.size / 1e3:.0f} kB", f"{one.top1:.2f}"] for one in found]
        show.table([name, "time", "size", "top-1"], rows)
        peers, own = ([one for one in found if (one.by in SHARES) == is_peer] for is_peer in (True, False))
        for one in own[1:]:
            better = [peer for peer in peers if peer.top1 > one.top1 and peer.ratio.high < one.ratio.low]
            yield Line(f"{name}, {one.name}", "peers that are faster and better", point(len(better)), "<=", 0, "")
        if name == "vgg":
            kept = [one for one in own if one.top1 >= own[0].top1 - LOST]
            best = min(kept, key=lambda one: one.ratio.value)
            yield Line(name, f"time over float's at {LOST:g} point less", best.ratio, "<=", FASTER, "x")


def run(name: str, say: Callable[[str], None], output: Path) -> list[Made]:
    """Every file of the network `name`."""
    output.mkdir(parents=True, exist_ok=True)
    weights, data = trained(name, say), calibration(output / "data.npz")
    files = {FLOAT: (FLOAT, exported(name, weights, output / "float.onnx"))}
    for peer, shares in SHARES.items():
        for share in shares:
            say(f"{name}: {peer} to {share:.0%}")
            file = output / f"{peer}_{share}.onnx"
            words = [environment.python("compression"), "-m", "tests.bench.compressing", peer, name, weights]
            _process([*words, data, share, file])
            files[f"{peer} {share:.0%}"] = peer, file
    for command in ("shrink", "factorize"):
        for latency in LATENCIES:
            say(f"{name}: convkit {command} {latency}")
            folder = output / f"{command}_{latency.strip('<=')}"
            given = [str(output / "float.onnx"), "--data", str(data), "--max-drop", "100"]
            try:
                product.run([command, *given, "--min-sqnr", "0", "--latency", latency, "-o", str(folder)])
            except product.FailedError as failure:
                if failure.code != 1:
                    raise
            files[f"{command} {latency}"] = "convkit", folder / "model.onnx"
    say(f"{name}: {len(files)} files are timed")
    return measured(files)


def calibration(file: Path) -> Path:
    """Images that all are fitted or calibrated on, in `file`."""
    learns = _training()
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
        supervised.train(network, _training(), SCHEDULE, "cross_entropy", _said(name, say), both)
        tensors = {key: tensor.detach().contiguous() for key, tensor in network.state_dict().items()}
        record.write_bytes(file, save(tensors))
    return file


def _said(name: str, say: Callable[[str], None]) -> Callable[[int, float], None]:
    return lambda epoch, loss: say(f"{name}: epoch {epoch}, loss {loss:.3f}")


def _training() -> Data:
    images, labels = cifar.training()
    return Data({"input": _planes(images)}, labels, "")


def _planes(images: np.ndarray) -> np.ndarray:
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


def measured(files: Mapping[str, tuple[str, Path]]) -> list[Made]:
    """Files by name and by whom, timed side by side and scored on all test images."""
    images, labels = cifar.images()
    arrays = {"input": _planes(images)}
    data = Data(arrays, labels, record.digest_arrays(arrays))
    options = Options(threads=THREADS)
    candidates = [Candidate(name, "onnxruntime", str(file), options) for name, (_, file) in files.items()]
    settings = Settings(budget=SECONDS * len(files), batch=1, metrics=("top1",))
    found = measure(candidates, FLOAT, data, settings)
    return [
        Made(name, by, found[name].ratios.get("p50", point(1.0)), file.stat().st_size, found[name].metrics["top1"])
        for name, (by, file) in files.items()
    ]
