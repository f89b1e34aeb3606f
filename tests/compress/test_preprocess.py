"""Preprocess: torchvision-free, so the oracle is Pillow and plain arithmetic."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.preprocess import Preprocess, apply, from_mapping, input_size

LITE = Preprocess(crop=224 / 256, mean=(127,), std=(128,))


def _spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", shape, dtype, tuple(d if isinstance(d, int) else 1 for d in shape))


def _photo(width: int = 320, height: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_lite_preprocessing() -> None:
    # min(w, h) * S / (S + 32) = 224 of 256: whole pixels, so a plain crop is the oracle.
    window = _photo().crop((48, 16, 272, 240))
    want = (np.asarray(window, np.float32) - 127) / 128
    got = apply(_photo(), LITE, _spec("N", 3, 224, 224))
    np.testing.assert_array_equal(got, want.transpose(2, 0, 1))


def test_colours_and_layout() -> None:
    rgb = apply(_photo(), LITE, _spec("N", 3, 32, 32))
    bgr = apply(_photo(), Preprocess(crop=224 / 256, mean=(127,), std=(128,), colours="BGR"), _spec("N", 3, 32, 32))
    last = apply(_photo(), Preprocess(crop=224 / 256, mean=(127,), std=(128,), layout="NHWC"), _spec("N", 32, 32, 3))
    np.testing.assert_array_equal(bgr, rgb[::-1])
    np.testing.assert_array_equal(last.transpose(2, 0, 1), rgb)


def test_mean_and_std_follow_the_colour_order() -> None:
    preprocess = Preprocess(crop=1, mean=(1, 2, 3), std=(1, 2, 4), colours="BGR")
    flat = Image.new("RGB", (8, 8), (7, 6, 5))
    assert apply(flat, preprocess, _spec("N", 3, 4, 4))[:, 0, 0].tolist() == [4, 2, 1]


@pytest.mark.parametrize("given", [{}, {"mean": (0.0,)}, {"std": (1.0,)}])
def test_the_usual_mean_and_std_are_in_the_order_of_colours(given: dict[str, tuple[float, ...]]) -> None:
    rgb, bgr = (Preprocess(colours=colours, **given) for colours in ("RGB", "BGR"))
    spec = _spec("N", 3, 32, 32)
    np.testing.assert_array_equal(apply(_photo(), bgr, spec), apply(_photo(), rgb, spec)[::-1])
    assert from_mapping(bgr.as_dict()) == bgr


def test_mean_and_std_that_are_given_stay_as_they_are() -> None:
    """Even where they are the usual ones."""
    usual = Preprocess().as_dict()
    given = from_mapping({**usual, "colours": "BGR"})
    assert (list(given.mean), list(given.std)) == (usual["mean"], usual["std"])


def test_grey_and_whole_image_and_other_aspects() -> None:
    assert apply(_photo(), Preprocess(colours="L", mean=(0,), std=(255,)), _spec("N", 1, 16, 24)).shape == (1, 16, 24)
    whole = apply(_photo(), Preprocess(crop=None, mean=(0,), std=(1,)), _spec("N", 3, 16, 24))
    want = np.asarray(_photo().resize((24, 16), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_array_equal(whole, want.transpose(2, 0, 1))


def test_bytes_stay_bytes() -> None:
    pixels = apply(_photo(), LITE, _spec("N", 3, 32, 32, dtype="uint8"))
    assert pixels.dtype == np.uint8
    assert pixels.max() > 128


def test_what_is_transparent_is_white() -> None:
    stamp = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (apply(stamp, Preprocess(mean=(0,), std=(1,)), _spec("N", 3, 4, 4)) == 255).all()


def test_a_turned_photo_is_turned_back(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    _photo().save(tmp_path / "turned.png", exif=exif)
    plain = Preprocess(mean=(0,), std=(1,))
    with Image.open(tmp_path / "turned.png") as turned:
        got = apply(turned, plain, _spec("N", 3, 16, 16))
    want = apply(_photo().transpose(Image.Transpose.ROTATE_270), plain, _spec("N", 3, 16, 16))
    np.testing.assert_array_equal(got, want)


def test_a_free_size_must_be_set() -> None:
    free = TensorSpec("x", ("N", 3, "H", "W"), "float32")
    assert input_size(Preprocess(size=(20, 30)), free) == (20, 30)
    with pytest.raises(ConvkitError, match="size"):
        input_size(Preprocess(), free)


@pytest.mark.parametrize(
    "text",
    [
        {"crop": 0},
        {"crop": 1.5},
        {"crop": "a"},
        {"interpolation": "cubic"},
        {"mean": "a"},
        {"mean": [1, 2]},
        {"mean": [float("nan")]},
        {"std": 0},
        {"std": []},
        {"colours": "HSV"},
        {"layout": "CHW"},
        {"size": [3]},
        {"size": [0, 3]},
        {"size": [224.0, 224.0]},
        {"colour": "RGB"},
    ],
)
def test_wrong_recipes_are_refused(text: dict[str, object]) -> None:
    with pytest.raises(ConvkitError, match="preprocess"):
        from_mapping(text)


def test_a_recipe_round_trips() -> None:
    assert from_mapping(LITE.as_dict()) == LITE
    assert from_mapping({"mean": 127, "std": 128, "crop": 0.875}) == LITE
