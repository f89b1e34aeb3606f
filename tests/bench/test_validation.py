"""What accuracy-controlled peers are measured by, and how their evaluations are counted."""

import numpy as np
import pytest

from tests.bench import environment
from tests.bench.validation import Validation


def test_agreement_is_with_the_float_network() -> None:
    validation = Validation(np.eye(4, dtype=np.float32))
    assert [validation.score(row, np.float32([9, 1, 0, 0])) for row in range(4)] == [1, 0, 0, 0]
    assert validation.evaluations == 1
    assert validation.cost([1, 1, 1, 0])["drop"] == 0.25


def test_images_are_scored_against_the_truth() -> None:
    truth = np.zeros((1, 3, 4, 4), np.float32)
    validation = Validation(truth + np.float32(0.01), truth)
    assert validation.metric == "psnr"
    assert validation.score(0, truth[0] + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    assert validation.of_float == pytest.approx(40, abs=1e-4)


def test_parts_of_a_pass_count_as_parts() -> None:
    validation = Validation(np.zeros((4, 2), np.float32))
    validation.counted(np.zeros(2))
    assert validation.evaluations == 0.25


@pytest.mark.parametrize(
    ("name", "package"), [("nncf", "nncf"), ("aimet", "aimet-onnx"), ("modelopt", "nvidia-modelopt")]
)
def test_every_environment_pins_its_peer(name: str, package: str) -> None:
    assert environment.versions(name, [package])[package][0].isdigit()
