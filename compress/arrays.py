"""Tensors as numpy's arrays and back, also in types that numpy lacks: brain floats, and floats of eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def array(tensor: torch.Tensor) -> np.ndarray:
    """`tensor` on the CPU; what numpy has no type for as float32, which has each of its numbers."""
    found = tensor.detach().cpu()
    return (found.float() if _lacks(found.dtype) else found).numpy()


def tensor(found: np.ndarray, dtype: str) -> torch.Tensor:
    """What an engine gives of a tensor in torch's type `dtype`; of one that numpy lacks it gives the bits as integers,
    or the numbers."""
    import numpy as np
    import torch

    wanted: torch.dtype = getattr(torch, dtype)
    held = torch.from_numpy(np.asarray(found, order="C"))
    if not _lacks(wanted):
        return held
    return held.to(wanted) if found.dtype.kind == "f" else held.view(wanted)


def host(found: np.ndarray) -> torch.Tensor:
    """An array as a tensor, also of the types that ml_dtypes adds, which torch has by the same names."""
    import torch

    if found.dtype.type.__module__ == "numpy":
        return torch.from_numpy(found)
    bits = found.view(f"uint{8 * found.dtype.itemsize}")
    return torch.from_numpy(bits).view(getattr(torch, found.dtype.name))


def read(found: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of what an engine gives of a tensor in torch's type `dtype`."""
    import torch

    return array(tensor(found, dtype)) if _lacks(getattr(torch, dtype)) else found


def _lacks(dtype: torch.dtype) -> bool:
    import torch

    return dtype == torch.bfloat16 or (dtype.is_floating_point and dtype.itemsize == 1)
