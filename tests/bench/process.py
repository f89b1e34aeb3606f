"""The process in which a peer quantizes, in the peer's environment: of the bench it may import what needs numpy alone.

python -m tests.bench.process PEER MODEL CALIBRATION.npz OUTPUT [simulated]     writes OUTPUT, and cost.json beside it
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

COST, TRUTH = "cost.json", "truth"
"""What the peer took; the array that holds the right answers to the calibration samples, where there are any."""


def main(part: str, model: str, calibration: str, output: str, *simulated: str) -> None:
    with np.load(calibration) as file:
        arrays = dict(file)
    truth = arrays.pop(TRUTH, None)
    module = importlib.import_module(f"tests.bench.peers.{part}")
    options = ({} if truth is None else {TRUTH: truth}) | ({"simulated": True} if simulated else {})
    started = time.perf_counter()
    told = module.quantize(Path(model), arrays, Path(output), **options) or {}
    cost = {"seconds": time.perf_counter() - started, **told}
    Path(output).with_name(COST).write_text(json.dumps(cost))


if __name__ == "__main__":
    main(*sys.argv[1:])
