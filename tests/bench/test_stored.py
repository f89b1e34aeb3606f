"""Arrays of a case come out of the cache as they went in."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench import packages, stored


def _store(cache: Path, name: str, arrays: tuple[np.ndarray, ...]) -> None:
    for path, content in stored.written(name, arrays):
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / path).write_bytes(content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packages, "CACHE", tmp_path)
    return tmp_path


def _pixels(count: int, edge: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, edge, edge)).astype(np.float32)


def test_classifier(cache: Path) -> None:
    labels = np.random.default_rng(0).random((3, 1000)) < 0.01
    arrays = ((_pixels(2, 8) - np.float32(127)) / np.float32(128), (_pixels(3, 8) - 127) / np.float32(128), labels)
    _store(cache, "lite0", arrays)
    found = stored.read("lite0")
    assert found is not None
    for one, other in zip(found, arrays, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_restoration(cache: Path) -> None:
    arrays = tuple(_pixels(count, edge) / np.float32(255) for count, edge in ((2, 8), (3, 8), (3, 12), (2, 12)))
    _store(cache, "upconv7", arrays)
    found = stored.read("upconv7")
    assert found is not None
    assert all(np.array_equal(one, other) for one, other in zip(found, arrays, strict=True))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(SystemExit, match="no images of 8 bits"):
        list(stored.written("upconv7", (np.full((1, 3, 4, 4), 0.123456, np.float32),)))


def test_what_is_not_stored_comes_from_its_packages(cache: Path) -> None:
    assert stored.read("lite0") is None
