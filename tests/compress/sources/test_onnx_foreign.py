"""Trained networks that torch did not write: OCR (Paddle), speech (spox), music (TensorFlow)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from convkit.compress.model import ModelRef, load
from tests.compress.sources.onnx_peer import assert_like_onnxruntime

OCR = {
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
}


def _file(package: str, inside: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / inside)


def _image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _page(height: int, width: int) -> torch.Tensor:
    """Black words on white, in [-1, 1]: on noise no text is found, and tiny probabilities compare badly."""
    page = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(page).text((8, height // 4), "convkit 42", "black", ImageFont.load_default(height // 3))
    pixels = torch.from_numpy(np.asarray(page, np.float32) / 127.5 - 1)
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous()


def test_text_detection_at_any_size() -> None:
    path = _file("rapidocr_onnxruntime", f"models/{OCR['det']}")
    model = load(ModelRef(path))
    assert model.inputs[0].sample == (1, 3, 224, 224)
    for height, width in ((96, 160), (64, 224)):
        # At its edges between text and page this network is steep: ONNX Runtime with and without its fusions
        # departs from itself by 5e-5, and both depart from float64 by as much.
        assert_like_onnxruntime(model, path, {"x": _page(height, width)}, tolerance=1e-4)
    assert any(isinstance(m, torch.nn.ConvTranspose2d) for m in model.graph.modules())


def test_text_recognition_at_any_width() -> None:
    path = _file("rapidocr_onnxruntime", f"models/{OCR['rec']}")
    model = load(ModelRef(path, shapes={"x": (("N", 3, 48, "W"), (1, 3, 48, 160))}))
    for shape in ((1, 3, 48, 96), (2, 3, 48, 200)):
        assert_like_onnxruntime(model, path, {"x": _image(*shape)})


def test_text_recognition_tried_on_the_size_that_the_data_has() -> None:
    """At this file's own default of 224 rows it does not run."""
    path = _file("rapidocr_onnxruntime", f"models/{OCR['rec']}")
    (spec,) = load(ModelRef(path, sizes={"x": (64, 3, 48, 160)})).inputs
    assert spec.sample == (1, 3, 48, 160)
    assert [isinstance(size, str) for size in spec.shape] == [True, False, True, True]


def test_text_direction_of_any_batch() -> None:
    path = _file("rapidocr_onnxruntime", f"models/{OCR['cls']}")
    model = load(ModelRef(path))
    assert model.inputs[0].shape == ("N", 3, "height", "width")
    for batch in (1, 3):
        assert_like_onnxruntime(model, path, {"x": _image(batch, 3, 48, 192)})


def test_music_transcription() -> None:
    path = _file("basic_pitch", "saved_models/icassp_2022/nmp.onnx")
    model = load(ModelRef(path))
    assert_like_onnxruntime(model, path, {model.inputs[0].name: _image(2, 43844, 1)})


STREAM = {"input": ((1, 576), (1, 576)), "state": ((2, 1, 128), (2, 1, 128))}
SILERO = {
    "silero_vad.onnx": (STREAM, {"sr": 16000}),
    "silero_vad_16k_op15.onnx": (STREAM, {"sr": 16000}),
    "silero_vad_16k_sequence.onnx": ({}, {}),
    "silero_vad_half.onnx": (STREAM, {}),
    "silero_vad_op18_ifless.onnx": (STREAM, {"sr": 16000}),
    "silero_vad_openvino_16k.onnx": ({}, {}),
}


@pytest.mark.parametrize("name", SILERO)
def test_speech_detection(name: str) -> None:
    """The sampling rate chooses a branch of an If; given as an argument, the branch becomes the network."""
    shapes, fixed = SILERO[name]
    path = _file("silero_vad", f"data/{name}")
    model = load(ModelRef(path, args=fixed, shapes=shapes))
    assert_like_onnxruntime(model, path, fixed=fixed)
    assert any(isinstance(m, torch.nn.Conv1d) for m in model.graph.modules())
