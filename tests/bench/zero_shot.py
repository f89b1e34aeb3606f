"""Zero-shot CIFAR-10: EfficientNet-Lite0 as convkit and its peers quantize it, on the 10,000 test images."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convkit.runtimes.bench.candidate import Candidate
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
    rows: dict[str, np.ndarray] = {}
    for name, engine, file in _files(case, products):
        say(f"zero-shot: {name}")
        rows[name] = scores(Candidate(name, engine, str(file), Options(threads=THREADS)), images)
    classes = {name: cifar.predictions(found) for name, found in rows.items()}
    agreement = {name: float((found == classes[FLOAT]).mean() * 100) for name, found in classes.items()}
    return ZeroShot(images, {name: cifar.accuracy(found) for name, found in rows.items()}, agreement)


def name_of(engine: str) -> str:
    """What convkit's result for `engine` is called here."""
    return f"{CONVKIT}, {engine}"


def _files(case: Case, products: Mapping[str, Quantized]) -> Iterator[tuple[str, str, Path]]:
    yield FLOAT, "onnxruntime", case.model
    for engine, part in (("onnxruntime", "onnxruntime_static"), ("openvino", "nncf_post_training")):
        peer = peers.load(part)
        yield peer.name, engine, peers.quantized(peer, case.model, case.calibration)
        yield name_of(engine), engine, products[engine].model


def scores(candidate: Candidate, images: int) -> np.ndarray:
    """Logits [images, 1000] of the first test images."""
    options = dataclasses.replace(candidate.options, shapes={})
    session = IsolatedSession(candidate.engine, candidate.path, options)
    (feed,), (output,) = session.inputs, session.outputs
    try:
        rows = [session.run({feed.name: batch})[output.name] for batch in cifar.batches(batch=_BATCH, count=images)]
    finally:
        session.close()
    return np.concatenate(rows)
