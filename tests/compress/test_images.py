"""Folders of images: what is read, what labels them, and which file is to blame."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convkit.compress.data import DataRef, load
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.preprocess import Preprocess

X = TensorSpec("x", ("N", 3, 8, 8), "float32", (1, 3, 8, 8))


def _image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _refused(path: object, *words: str, inputs: tuple[TensorSpec, ...] = (X,), **options: object) -> None:
    with pytest.raises(ConvkitError) as refusal:
        load(DataRef(str(path), **options), inputs)
    for word in words:
        assert word in str(refusal.value)


def test_a_folder_of_images_in_order_with_labels_from_folders(tmp_path: Path) -> None:
    for i, name in enumerate(["b/2.png", "a/1.jpg", "b/deep/3.webp", "a/0.bmp"]):
        _image(tmp_path / name, seed=i)
    (tmp_path / "README").write_text("words")
    (tmp_path / "meta.json").write_text("{}")
    data = load(DataRef(str(tmp_path)), (X,))
    assert data.arrays["x"].shape == (4, 3, 8, 8)
    assert data.arrays["x"].dtype == np.float32
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]


def test_whole_numbers_as_folder_names_are_the_classes(tmp_path: Path) -> None:
    for i, folder in enumerate(["7", "12", "007"]):
        _image(tmp_path / folder / f"{i}.png", seed=i)
    labels = load(DataRef(str(tmp_path)), (X,)).labels
    assert labels is not None
    assert labels.tolist() == [7, 12, 7]


def test_classes_are_numbered_among_all_folders_however_few_images_are_taken(tmp_path: Path) -> None:
    for index, folder in enumerate(["cat", "dog", "newt", "cat", "newt", "newt"]):
        _image(tmp_path / folder / f"{index}.png", seed=index)
    every = load(DataRef(str(tmp_path)), (X,))
    few = load(DataRef(str(tmp_path), limit=2), (X,))
    assert every.labels is not None
    assert few.labels is not None
    assert every.labels.tolist() == [0, 0, 1, 2, 2, 2]
    for image, label in zip(few.arrays["x"], few.labels, strict=True):
        (same,) = [row for row, other in enumerate(every.arrays["x"]) if np.array_equal(image, other)]
        assert label == every.labels[same]
    assert max(few.labels) > 1


def test_images_at_the_top_have_no_labels(tmp_path: Path) -> None:
    _image(tmp_path / "a.png", 1)
    _image(tmp_path / "b.png", 2)
    assert load(DataRef(str(tmp_path)), (X,)).labels is None


def test_labels_none_switches_the_folders_off(tmp_path: Path) -> None:
    _image(tmp_path / "a/a.png", 1)
    _image(tmp_path / "b/b.png", 2)
    assert load(DataRef(str(tmp_path), labels="none"), (X,)).labels is None


def test_labels_by_pattern_select_the_files(tmp_path: Path) -> None:
    for i, name in enumerate(["imagenet_00_243.png", "imagenet_01_9.png", "cifar_00_3.png"]):
        _image(tmp_path / name, seed=i)
    labels = load(DataRef(str(tmp_path), pattern="imagenet_*_{label}.png"), (X,)).labels
    assert labels is not None
    assert labels.tolist() == [243, 9]
    assert len(load(DataRef(str(tmp_path), pattern="c*.[pj][np]g"), (X,))) == 1
    _refused(tmp_path, "no image that matches", pattern="other_{label}.png")


def test_labels_from_json_with_several_acceptable_classes(tmp_path: Path) -> None:
    for i in range(3):
        _image(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "l.json").write_text(json.dumps({"0": 1, "1.png": [0, 3], "2": [2]}))
    labels = load(DataRef(str(tmp_path), labels="l.json"), (X,)).labels
    assert labels is not None
    assert [np.flatnonzero(row).tolist() for row in labels] == [[1], [0, 3], [2]]


def test_labels_from_csv(tmp_path: Path) -> None:
    for i in range(2):
        _image(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "l.csv").write_text("file,label\n0.png,4\n1.png,5\n")
    labels = load(DataRef(str(tmp_path), labels=str(tmp_path / "l.csv")), (X,)).labels
    assert labels is not None
    assert labels.tolist() == [4, 5]


@pytest.mark.parametrize(("name", "text"), [("l.csv", "0.png,4\n1.png,5\n"), ("l.json", '{"0.png": 4, "1.png": 5}')])
def test_labels_that_begin_with_a_mark(tmp_path: Path, name: str, text: str) -> None:
    """As spreadsheets and editors of some systems write UTF-8."""
    for i in range(2):
        _image(tmp_path / f"{i}.png", seed=i)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    labels = load(DataRef(str(tmp_path), labels=name), (X,)).labels
    assert labels is not None
    assert labels.tolist() == [4, 5]


@pytest.mark.parametrize("text", ['{"0.png": 1}', '{"0.png": -1, "1.png": 0}', "[1]", "{", '{"0.png": [], "1.png": 2}'])
def test_bad_labels_files(tmp_path: Path, text: str) -> None:
    for i in range(2):
        _image(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "l.json").write_text(text)
    _refused(tmp_path, "label", labels="l.json")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    _image(tmp_path / "good.png")
    _image(tmp_path / "bad.jpg", seed=1, size=(200, 200))
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "bad.jpg").read_bytes()[:2000])
    _refused(tmp_path, "bad.jpg", "no readable image")
    (tmp_path / "bad.jpg").write_bytes(b"")
    _refused(tmp_path, "bad.jpg")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    _image(tmp_path / "good.png")
    (tmp_path / "film.mp4").write_bytes(b"1")
    _refused(tmp_path, "film.mp4")


def test_an_empty_folder(tmp_path: Path) -> None:
    _refused(tmp_path, "no image")


def test_images_feed_one_image_input_only(tmp_path: Path) -> None:
    _image(tmp_path / "good.png")
    _refused(tmp_path, "one input", inputs=(X, X))
    _refused(tmp_path, "do not fit input 'x'", inputs=(TensorSpec("x", ("N", 10), "float32", (1, 10)),))
    _refused(tmp_path, "do not fit", inputs=(TensorSpec("x", ("N", 8, 8, 3), "float32", (1, 8, 8, 3)),))


def test_the_digest_follows_content_labels_and_preprocessing(tmp_path: Path) -> None:
    for i in range(3):
        _image(tmp_path / "a" / f"{i}.png", seed=i)
    same = [load(DataRef(str(tmp_path)), (X,)).digest for _ in range(2)]
    other = load(DataRef(str(tmp_path), preprocess=Preprocess(crop=None)), (X,)).digest
    bare = load(DataRef(str(tmp_path), labels="none"), (X,)).digest
    assert same[0] == same[1]
    assert len({same[0], other, bare}) == 3
