"""GridSample: values of x at given places."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch.nn.functional as F
from torch import Tensor

_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def GridSample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """x [N, C, H, W] (or [N, C, D, H, W]) at `grid` [N, h, w, 2], places in [-1, 1], the last axis (x, y)."""
    return F.grid_sample(x, grid, _MODES[mode], padding_mode, bool(align_corners))
