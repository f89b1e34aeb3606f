"""Launches of compiled kernels by the CUDA driver, which is there wherever a GPU is."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from convkit.compress.errors import NotAvailableError
from convkit.export.compiled import Binary

_LIBRARY = "libcuda.so.1"
_MOST_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"""
_USUAL_SHARED = 48 << 10
"""More must be asked for."""
_WARP, _SCRATCH = 32, 2
"""Threads, and pointers that Triton's functions take behind their own, to memory that ours need none of."""


class Function:
    """A function on the GPU whose context is current."""

    def __init__(self, binary: Binary) -> None:
        self._cuda, self._binary = _library(), binary
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check("cuModuleLoadData", ctypes.byref(self._module), binary.code)
        name = binary.name.encode()
        self._check("cuModuleGetFunction", ctypes.byref(self._function), self._module, name)
        if binary.shared > _USUAL_SHARED:
            self._check("cuFuncSetAttribute", self._function, _MOST_SHARED, binary.shared)

    def launch(self, grid: Sequence[int], pointers: Sequence[int], scalars: Sequence[int], stream: int) -> None:
        """Programs along up to three axes; `pointers` and int32 `scalars` as the function takes them."""
        values = [*map(ctypes.c_void_p, pointers), *map(ctypes.c_int32, scalars)]
        values += [ctypes.c_void_p()] * _SCRATCH
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [*grid, 1, 1][:3]
        threads = self._binary.warps * _WARP
        self._check("cuLaunchKernel", self._function, *sizes, threads, 1, 1, self._binary.shared,
                    ctypes.c_void_p(stream), places, None)  # fmt: skip

    def _check(self, name: str, *arguments: object) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} of {self._binary.name} fails: CUDA error {status}")


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NotAvailableError(f"no GPU is at hand: there is no {_LIBRARY}", hint="install NVIDIA's driver") from error
