"""The benches stand on the right data: float networks score on it what is known of them."""

import numpy as np
import onnxruntime
import pytest

from convkit.compress import metric
from tests.bench import cifar, networks, photos, text


def _run(name: str, inputs: np.ndarray, batch: int = 16) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(networks.onnx_file(name)), options, providers=["CPUExecutionProvider"])
    (feed,) = session.get_inputs()
    starts = range(0, len(inputs), batch)
    return np.concatenate([session.run(None, {feed.name: inputs[i : i + batch]})[0] for i in starts])


@pytest.mark.parametrize(
    ("name", "top1", "top5"), [("lite0", 83.4, 96.2), ("lite1", 85.5, 96.2), ("lite2", 86.8, 97.9)]
)
def test_photos(name: str, top1: float, top5: float) -> None:
    inputs, labels = photos.labelled_arrays(photos.SIZES[name])
    assert inputs.shape == (235, 3, *[photos.SIZES[name]] * 2)
    outputs = {"output": _run(name, inputs)}
    assert metric.evaluate("top1", outputs, labels=labels) == pytest.approx(top1, abs=0.05)
    assert metric.evaluate("top5", outputs, labels=labels) == pytest.approx(top5, abs=0.05)


def test_calibration_photos() -> None:
    assert photos.calibration_array(224).shape == (92, 3, 224, 224)


def test_zero_shot() -> None:
    scores = np.concatenate([_run("lite0", batch) for batch in cifar.batches(count=500)])
    # 59.64 % of all 10,000; the first 500 stand within two standard errors of it.
    assert cifar.accuracy(scores) == pytest.approx(59.64, abs=4.4)


def test_super_resolution_beats_bicubic() -> None:
    low, true, bicubic = networks.super_resolution_pairs()
    found = metric.evaluate("psnr", {"output": _run("upconv7", low[:12], 4)}, {}, true[:12])
    assert found > metric.evaluate("psnr", {"output": bicubic[:12]}, {}, true[:12]) + 1


def test_text_is_read() -> None:
    lines, texts = text.lines(60)
    known = text.characters(str(networks.onnx_file("ocr_rec")))
    assert text.accuracy(_run("ocr_rec", lines), texts, known) > 90
