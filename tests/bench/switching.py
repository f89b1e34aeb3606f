"""One stored network at every width: ResNet-20 on CIFAR-10 by `convkit train --switch`, beside what was published.

Huang et al., Nearly Lossless Adaptive Bit Switching: there over 200 epochs on GPUs, here a short training behind the
float network's own, on a CPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli import figures, show
from convkit.runtimes.bench.estimate import point
from tests.bench import compressed, product
from tests.bench.limits import Line
from tests.bench.searched import NARROW

NETWORK = "resnet"
PUBLISHED = {8: 92.25, 6: 92.32, 4: 92.09, 2: 90.19}
"""Top-1 of each width with ALRS."""
FLOAT, APART = 92.30, 0.5
"""Top-1 in float there; points that a width may lose more here than there."""
LEARNS, EPOCHS, RATE = 20_000, 4, 1e-3


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """What each width loses to float, less what it lost there."""
    subject = compressed.subject(NETWORK, say, output)
    learns = compressed.training()
    file = output / "learns.npz"
    np.savez(file, input=learns.arrays["input"][:LEARNS], labels=_labels(learns)[:LEARNS])
    say(f"{NETWORK}: trained at {', '.join(map(str, PUBLISHED))} bits")
    words = ["--data", str(file), "--switch", ",".join(map(str, PUBLISHED)), "--norms", "--augment", "flip,shift"]
    words += ["--epochs", str(EPOCHS), "--batch", "128", "--rate", str(RATE), "--target", str(NARROW)]
    product.run(["train", str(subject.model), *words, "-o", str(output / "any")])
    files = {compressed.FLOAT: (compressed.FLOAT, subject.model)}
    for bits in PUBLISHED:
        product.run(["switch", str(output / "any/model.onnx"), "--bits", str(bits), "-o", str(output / f"bits{bits}")])
        files[f"{bits} bits"] = "convkit", output / f"bits{bits}" / "model.onnx"
    found = compressed.measured(files, subject, say)
    report["switching"] = [asdict(one) for one in found]
    rows = [[one.name, figures.ratio(one.ratio), f"{one.size / 1e3:.0f} kB", f"{one.score:.2f}"] for one in found]
    show.table(["network", "time", "size", "top-1"], rows)
    for (bits, published), one in zip(PUBLISHED.items(), found[1:], strict=True):
        lost = found[0].score - one.score - (FLOAT - published)
        yield Line(f"{NETWORK}, {bits} bits", "lost to float, less what was lost there", point(lost), "<=", APART, "%")
    stored, whole = ((output / place / "model.onnx").stat().st_size for place in ("any", "bits8"))
    yield Line(NETWORK, "bytes of all widths over those of eight bits", point(stored / whole), "<=", 1.5, "x")


def _labels(learns: compressed.Data) -> np.ndarray:
    assert learns.labels is not None  # CIFAR-10 has them
    return learns.labels
