"""The two packages that are TensorRT, the enterprise one and that for RTX: one API, so one code serves both."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convkit.compress.errors import ConvkitError, NotAvailableError


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that builds engines.

    `sms`: the compute capabilities it builds for without a device that has them; where there are none it builds for
    the device at hand. `library`: the stem of its own, which its ONNX parser opens by a name that the package may lack.
    `times`: whether it measures kernels as it builds, so that a timing cache is of any use. `hardware`: whether its
    engines can be for GPUs of other compute capabilities too, `later`: for later versions of it.
    """

    name: str
    about: str
    extra: str
    library: str
    sms: tuple[int, ...] = ()
    times: bool = True
    hardware: bool = True
    later: bool = True


PACKAGES: Mapping[str, Package] = {
    "tensorrt": Package("tensorrt", "TensorRT", "trt", "libnvinfer"),
    "tensorrt_rtx": Package(
        "tensorrt_rtx",
        "TensorRT for RTX",
        "trt-rtx",
        "libtensorrt_rtx",
        (75, 80, 86, 89, 120, 121),
        times=False,
        hardware=False,
        later=False,
    ),
}
_FP8_SM = 89
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
"""Compute capability from which on there are kernels for FP8."""


def load(name: str) -> Any:  # noqa: ANN401 - a module without types
    """The module; raises NotAvailableError, with the line that installs it, where it is missing."""
    known = PACKAGES[name]
    try:
        return importlib.import_module(known.name)
    except ImportError as error:
        raise NotAvailableError(
            f"{known.about} is not installed", hint=f"pip install 'convkit[{known.extra}]'"
        ) from error


class Logger:
    """What the package says, by level: `messages`; `log` is what it is given."""

    def __init__(self, trt: Any) -> None:  # noqa: ANN401 - a module without types
        self.messages: list[tuple[str, str]] = []
        messages = self.messages

        class Own(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - the package has no types
                messages.append((severity.name, message))

        self.log = Own()


def version(name: str) -> str:
    """Of the package; raises as `load` does."""
    return str(load(name).__version__)


def check_sm(name: str, sm: int | None, *, fp8: bool) -> None:
    """Raise ConvkitError where the package builds nothing for `sm`, or where that lacks FP8, which the network has."""
    known = PACKAGES[name]
    if sm is None:
        if known.sms:
            listed = ", ".join(map(str, known.sms))
            raise ConvkitError(f"{known.about} must be told what to build for", hint=f"give --sm, one of {listed}")
        return
    if sm not in known.sms:
        listed = f"one of {', '.join(map(str, known.sms))}" if known.sms else "none: it builds for the device at hand"
        raise ConvkitError(f"{known.about} builds no engine for SM {sm}", hint=f"--sm takes {listed}")
    if fp8 and sm < _FP8_SM:
        raise ConvkitError(f"SM {sm} has no FP8", hint=f"plan int8 for it, or give --sm {_FP8_SM} or later")


def check_cache(name: str, cache: str | None) -> None:
    """Raise ConvkitError for a timing cache of a package that makes no use of it."""
    if cache and not PACKAGES[name].times:
        about = PACKAGES[name].about
        raise ConvkitError(f"{about} measures no kernels and keeps no timing cache", hint="leave out --timing-cache")


def check_compatible(name: str, *, hardware: bool, later: bool) -> None:
    """Raise ConvkitError where engines for other GPUs, or for later versions, are asked of a package that has none: it
    would say nothing of the one, and lacks a library for the other."""
    known = PACKAGES[name]
    if hardware and not known.hardware:
        raise ConvkitError(
            f"{known.about} builds for the compute capability of --sm alone", hint="leave out --hardware-compatible"
        )
    if later and not known.later:
        raise ConvkitError(f"{known.about} builds for its own version alone", hint="leave out --version-compatible")


def library(name: str) -> Path | None:
    """The package's shared library, where it ships it under a versioned name alone: that of its own version, where
    others are beside it."""
    major = version(name).partition(".")[0]
    found = libraries(name)
    return next((file for file in found if file.name.endswith(f".so.{major}")), found[-1] if found else None)


def libraries(name: str) -> list[Path]:
    """All that there are."""
    folders = [importlib.util.find_spec(module) for module in (f"{name}_libs", name)]
    places = [Path(place) for spec in folders if spec for place in spec.submodule_search_locations or ()]
    return [file for place in places for file in sorted(place.glob(f"{PACKAGES[name].library}.so.*"))]


def types(trt: Any) -> dict[Any, str]:  # noqa: ANN401 - a module without types
    """The package's types that kernels have -> torch's names."""
    names = ("float32", "float16", "bfloat16", "int32", "int8")
    return {getattr(trt, name): name for name in names}


def check_gpu(name: str) -> None:
    """Raise NotAvailableError where the package builds for the GPU at hand, and there is none.

    The driver is asked, for the package dies of its absence without a word, and needs no torch.
    """
    known = PACKAGES[name]
    if not known.sms and _asked("cuDeviceGetCount") in (None, 0):
        raise NotAvailableError(
            f"{known.about} builds engines on a GPU, and none is at hand",
            hint="--target trt-rtx --sm 89 builds one without; --no-build writes the ONNX file alone",
        )


def capability(name: str, sm: int | None) -> int | None:
    """The compute capability that an engine is for: `sm`, or that of the GPU at hand where it is built for that."""
    return sm if PACKAGES[name].sms else device_sm()


def device_sm() -> int:
    """Compute capability of the GPU at hand. Raises NotAvailableError where there is none."""
    major, minor = (_asked("cuDeviceGetAttribute", attribute, 0) for attribute in (_MAJOR, _MINOR))
    if major is None or minor is None:
        raise NotAvailableError("no GPU is at hand", hint="--sm says which it is built for")
    return 10 * major + minor


def _asked(question: str, *about: int) -> int | None:
    """The number that the driver gives, which needs no torch; None where there is no driver, or no answer."""
    import ctypes

    found = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        known = driver.cuInit(0) == 0 and getattr(driver, question)(ctypes.byref(found), *about) == 0
    except (OSError, AttributeError):
        known = False
    return found.value if known else None
