"""Trained networks that torch did not write: OCR (Paddle), speech (spox), music (TensorFlow)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import GraphOptimizationLevel as Level
from PIL import Image, ImageDraw, ImageFont

from convkit.compress.model import ModelRef, load, parse_shape
from tests.compress.sources import onnx_float64
from tests.compress.sources.onnx_peer import assert_like_onnxruntime, session

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


def _page(height: int, width: int, words: str = "convkit 42") -> torch.Tensor:
    """Black words on white, in [-1, 1]: on noise no text is found, and tiny probabilities compare badly."""
    page = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(page).text((8, height // 4), words, "black", ImageFont.load_default(height // 3))
    pixels = torch.from_numpy(np.asarray(page, np.float32) / 127.5 - 1)
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous()


def test_text_detection_at_any_size() -> None:
    """In float64, to the last digits: at its edges between text and page this network is so steep that in float32
    ONNX Runtime departs from itself, with its fusions and without, by more than 1e-5."""
    path = _file("rapidocr_onnxruntime", f"models/{OCR['det']}")
    model = load(ModelRef(path))
    assert model.inputs[0].sample == (1, 3, 224, 224)
    assert any(isinstance(m, torch.nn.ConvTranspose2d) for m in model.graph.modules())
    exact, oracle = onnx_float64.in_float64(model), onnx_float64.reference(path)
    for image in (_page(96, 160), _page(64, 224), _image(2, 3, 32, 64)):
        (found,) = exact({"x": image.double()}).values()
        (wanted,) = oracle.run(None, {"x": image.double().numpy()})
        assert found.numpy().dtype == wanted.dtype == np.float64
        assert np.abs(found.numpy() - wanted).max() <= 1e-11 * np.abs(wanted).max()


def test_text_detection_is_as_near_to_float64_as_onnxruntime() -> None:
    """Root mean square error over several pages: which of two float32 runs is nearer differs from page to page."""
    path = _file("rapidocr_onnxruntime", f"models/{OCR['det']}")
    model, oracle = load(ModelRef(path)), onnx_float64.reference(path)
    peers = [session(path, level) for level in (Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_ALL)]
    squares = np.zeros(1 + len(peers))
    for size, words in (((96, 160), "convkit 42"), ((64, 128), "hello"), ((96, 128), "INT8"), ((64, 160), "a network")):
        image = _page(*size, words)
        (wanted,) = oracle.run(None, {"x": image.double().numpy()})
        found = [*model({"x": image}).values(), *(peer.run(None, {"x": image.numpy()})[0] for peer in peers)]
        assert all(np.asarray(one).dtype == np.float32 for one in found)
        squares += [np.mean((np.asarray(one, np.float64) - wanted) ** 2) for one in found]
    ours, *theirs = np.sqrt(squares)
    assert ours <= 2 * max(theirs)


def test_text_recognition_at_any_width() -> None:
    path = _file("rapidocr_onnxruntime", f"models/{OCR['rec']}")
    model = load(ModelRef(path, shapes=dict([parse_shape("x:Nx3x48xW=160")])))
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


STREAM = dict(map(parse_shape, ("input:1x576", "state:2x1x128")))
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
