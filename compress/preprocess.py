"""How an image becomes a network's input: crop, resize, colours, normalise, layout. Stands in the recipe as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
COLOURS = {"RGB": 3, "BGR": 3, "L": 1}
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """`(resize(crop(image)) - mean) / std`, mean and std per channel on the scale 0-255.

    The defaults are those of most ImageNet networks of the last years, in the order of `colours`. `crop` is the share
    of the largest centred window of the input's aspect ratio that is kept (0.875 = 224/256 for S/(S+32)); None squeezes
    the whole image. `size` is (height, width) where the input's own is free; an unsigned 8-bit input is not normalised.
    """

    crop: float | None = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    colours: str = "RGB"
    layout: str = "NCHW"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        usual: dict[str, Any] = {field.name: field.default for field in fields(self)}
        for name in ("mean", "std", "size"):
            value = getattr(self, name)
            if self.colours == "BGR" and name != "size" and value is usual[name]:  # equal ones were given, as BGR
                value = value[::-1]
            if value is not None:
                object.__setattr__(self, name, _numbers(name, value))
        self._check()

    def _check(self) -> None:
        _among("interpolation", self.interpolation, INTERPOLATIONS)
        _among("colours", self.colours, tuple(COLOURS))
        _among("layout", self.layout, LAYOUTS)
        if self.crop is not None and not (isinstance(self.crop, (int, float)) and 0 < self.crop <= 1):
            raise _refusal("crop", self.crop, "a share of the image above 0 and at most 1, or null")
        if not self.std or min(self.std) <= 0:
            raise _refusal("std", self.std, "numbers above 0")
        whole = all(isinstance(side, int) for side in self.size or ())
        if self.size is not None and (len(self.size) != 2 or not whole or min(self.size) < 1):  # noqa: PLR2004
            raise _refusal("size", self.size, "[height, width] in pixels")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, COLOURS[self.colours]):
                raise _refusal(name, getattr(self, name), f"1 or {COLOURS[self.colours]} numbers")

    def as_dict(self) -> dict[str, Any]:
        """The value as a recipe and a manifest hold it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def from_mapping(text: Mapping[str, Any]) -> Preprocess:
    """The Preprocess that a recipe's mapping describes; an unknown key is the user's error."""
    known = [field.name for field in fields(Preprocess)]
    unknown = sorted(set(text) - set(known))
    if unknown:
        raise ConvkitError(f"preprocess has no {unknown[0]!r}", hint=f"there is: {', '.join(known)}")
    return Preprocess(**text)


def apply(image: Image.Image, preprocess: Preprocess, spec: TensorSpec) -> np.ndarray:
    """One sample of `spec`'s shape without its batch axis, in `spec`'s element type."""
    import numpy as np

    height, width = input_size(preprocess, spec)
    pixels = np.asarray(
        _resize(_converted(image, preprocess), preprocess.crop, preprocess.interpolation, height, width)
    )
    pixels = pixels.reshape(height, width, COLOURS[preprocess.colours])
    if preprocess.colours == "BGR":
        pixels = pixels[:, :, ::-1]
    if spec.dtype != "uint8":
        mean, std = (np.asarray(numbers, np.float32) for numbers in (preprocess.mean, preprocess.std))
        pixels = ((pixels - mean) / std).astype(spec.dtype)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if preprocess.layout == "NCHW" else pixels)


def input_size(preprocess: Preprocess, spec: TensorSpec) -> tuple[int, int]:
    """(height, width) of `spec`, an image input in the preprocess's layout."""
    sample = spec.sample or spec.shape
    channels_axis, axes = (1, (2, 3)) if preprocess.layout == "NCHW" else (3, (1, 2))
    channels = COLOURS[preprocess.colours]
    if len(spec.shape) != 4 or (isinstance(sample[channels_axis], int) and sample[channels_axis] != channels):  # noqa: PLR2004
        raise ConvkitError(
            f"{preprocess.colours} images in {preprocess.layout} do not fit input {spec.name!r}, {list(spec.shape)}",
            hint="set colours and layout in preprocess, or give arrays in an .npz",
        )
    if preprocess.size is not None:
        return preprocess.size
    size = tuple(sample[axis] for axis in axes)
    if not all(isinstance(edge, int) for edge in size):
        raise ConvkitError(
            f"input {spec.name!r} has no fixed image size", hint="set size: [height, width] in preprocess"
        )
    return cast("tuple[int, int]", size)


def _converted(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Transparent pixels lie on white; EXIF turns are made."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if preprocess.colours == "L" else "RGB")


def _resize(image: Image.Image, crop: float | None, interpolation: str, height: int, width: int) -> Image.Image:
    from PIL import Image

    resampling = Image.Resampling[interpolation.upper()]
    if crop is None:
        return image.resize((width, height), resampling)
    fit = min(image.width / width, image.height / height) * crop
    left, top = (image.width - fit * width) / 2, (image.height - fit * height) / 2
    # A window of whole pixels is off by up to one, which moves every sample of a small image.
    window = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + fit * width, image.width),
        min(top + fit * height, image.height),
    )
    return image.resize((width, height), resampling, box=window)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise _refusal(name, value, "numbers")
    return tuple(values)


def _among(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise _refusal(name, value, f"one of {', '.join(known)}")


def _refusal(name: str, value: object, wanted: str) -> ConvkitError:
    return ConvkitError(f"preprocess.{name} is {value!r}", hint=f"give {wanted}")
