"""Zero-shot CIFAR-10: EfficientNet-Lite0 as convkit and its peers quantize it, on the 10,000 test images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convkit.runtimes.session import Options
from convkit.runtimes.session.isolated import IsolatedSession
from tests.bench import cifar
from tests.bench import peer as peers
from tests.bench.cases import Case
from tests.bench.comparison import CONVKIT, FLOAT, THREADS
from tests.bench.product import Quantized

_BATCH = 50


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Percent of the first `images` that are classified right, and that get the class the float network gives."""

    images: int
    accuracy: Mapping[str, float]
    agreement: Mapping[str, float]


def score(case: Case, products: Mapping[str, Quantized], images: int, say: Callable[[str], None]) -> ZeroShot:
    """`products`: convkit's result by engine. Every file runs in the engine it was made for."""
    scores: dict[str, np.ndarray] = {}
    for name, engine, file in _files(case, products):
        say(f"zero-shot: {name}")
        scores[name] = _scores(engine, file, images)
    classes = {name: cifar.predictions(rows) for name, rows in scores.items()}
    agreement = {name: float((found == classes[FLOAT]).mean() * 100) for name, found in classes.items()}
    return ZeroShot(images, {name: cifar.accuracy(rows) for name, rows in scores.items()}, agreement)


def name_of(engine: str) -> str:
    """What convkit's result for `engine` is called here."""
    return f"{CONVKIT}, {engine}"


def _files(case: Case, products: Mapping[str, Quantized]) -> Iterator[tuple[str, str, Path]]:
    yield FLOAT, "onnxruntime", case.model
    for engine, part in (("onnxruntime", "onnxruntime_static"), ("openvino", "nncf_post_training")):
        peer = peers.load(part)
        yield peer.name, engine, peers.quantized(peer, case.model, case.calibration)
        yield name_of(engine), engine, products[engine].model


def _scores(engine: str, file: Path, images: int) -> np.ndarray:
    """Logits [images, 1000]."""
    session = IsolatedSession(engine, str(file), Options(threads=THREADS))
    (feed,), (output,) = session.inputs, session.outputs
    try:
        rows = [session.run({feed.name: batch})[output.name] for batch in cifar.batches(batch=_BATCH, count=images)]
    finally:
        session.close()
    return np.concatenate(rows)
