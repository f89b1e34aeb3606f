"""Which of a package's libraries is its own, and what it builds for."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from convkit.compress.errors import ConvkitError, NotAvailableError
from convkit.export.tensorrt import build, package
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.package import Package
from convkit.export.tensorrt.request import Settings
from tests.compress.network import Net


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("9", "10", "11"), "10"),
        (("10",), "10"),
        (("8", "9"), "9"),
        ((), None),
    ],
)
def test_of_several_versions_that_of_the_package_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], taken: str | None
) -> None:
    """The last one where none bears its number."""
    for name in ("own_trt", "own_trt_libs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('__version__ = "10.2.0"\n')
    for version in there:
        (tmp_path / "own_trt_libs" / f"libown.so.{version}").write_bytes(b"")
    monkeypatch.setattr(package, "PACKAGES", {"own_trt": Package("own_trt", "Own", "own", "libown")})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_trt", raising=False)
    found = package.library("own_trt")
    assert (found.name if found else None) == (f"libown.so.{taken}" if taken else None)


def test_a_build_takes_it_where_another_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = package.libraries("tensorrt_rtx")
    (tmp_path / "libtensorrt_rtx.so.0").write_bytes(b"no library")
    monkeypatch.setattr(package, "libraries", lambda _name: [tmp_path / "libtensorrt_rtx.so.0", *real])
    net = Net(1, 3, 8, 8)
    path = Path(net.save(tmp_path / "net.onnx", net.conv("x", 4)))
    assert build.build("tensorrt_rtx", path, Settings(sm=89)).engine


def test_what_builds_on_a_gpu_is_not_available_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package, which is there, nothing is asked."""
    own = ModuleType("tensorrt")
    own.__version__ = "10.9"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", own)
    asked: list[str] = []

    def missing(name: str) -> None:
        asked.append(name)
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    net = Net(1, 3, 8, 8)
    path = Path(net.save(tmp_path / "net.onnx", net.conv("x", 4)))
    with pytest.raises(NotAvailableError, match="TensorRT builds engines on a GPU, and none is at hand") as caught:
        build_and_assert("tensorrt", path, Settings())
    assert caught.value.hint.startswith("--target trt-rtx --sm 89 builds one without")
    assert asked == ["libcuda.so.1"]
    package.check_gpu("tensorrt_rtx")
    assert asked == ["libcuda.so.1"]


def test_the_driver_tells_the_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which torch need not be built for."""

    class Driver:
        def __init__(self, name: str) -> None:
            assert name == "libcuda.so.1"

        def cuInit(self, _: int) -> int:  # noqa: N802 - its name
            return 0

        def cuDeviceGetAttribute(self, found: Any, attribute: int, device: int) -> int:  # noqa: N802
            found._obj.value = {75: 8, 76: 9}[attribute]
            return device

    monkeypatch.setattr("ctypes.CDLL", Driver)
    assert package.capability("tensorrt", None) == 89
    assert package.capability("tensorrt_rtx", 80) == 80


def test_rtx_has_no_engines_for_other_gpus(tmp_path: Path) -> None:
    """Refused before the file is read."""
    with pytest.raises(ConvkitError, match="builds for the compute capability of --sm alone") as caught:
        build.build("tensorrt_rtx", tmp_path / "none.onnx", Settings(sm=89, hardware_compatible=True))
    assert caught.value.hint == "leave out --hardware-compatible"
    with pytest.raises(ConvkitError, match="builds for its own version alone") as caught:
        build.build("tensorrt_rtx", tmp_path / "none.onnx", Settings(sm=89, version_compatible=True))
    assert caught.value.hint == "leave out --version-compatible"
    package.check_compatible("tensorrt", hardware=True, later=True)
