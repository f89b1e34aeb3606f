"""What the file of a trained network may score otherwise than the network did."""

import pytest

from convkit.cli import quantized_scores


@pytest.mark.parametrize(
    ("samples", "found", "trained", "told"),
    [
        (97, 69.07, 67.01, False),
        (97, 69.07, 60.0, True),
        (2_000, 88.0, 89.0, False),
        (2_000, 88.0, 90.0, True),
        (2_000, 90.0, 88.0, True),
        (50_000, 70.0, 70.5, True),
    ],
)
def test_what_is_more_than_chance_is_told(samples: int, found: float, trained: float, *, told: bool) -> None:
    networks = {"float": {"metrics": {"top1": 99.0}}, "trained": {"metrics": {"top1": found, "sqnr": 20.0}}}
    simulated = {"top1": trained, "sqnr": 30.0}
    report = {"networks": networks, "samples": samples, "engine": "onnxruntime", "simulated": simulated}
    words = f"top1 is {found:.4g} % in onnxruntime, and was {trained:.4g} % in training"
    assert quantized_scores.apart(report) == (words if told else "")
