"""A method: one way to change a network's layers. Parts in `compress/methods`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, fx

Samples = Mapping[str, "Tensor"]
"""A batch of inputs by name."""
Batches = list[Samples]


@dataclass(frozen=True, slots=True)
class Method:
    """`change` edits a graph that is its own to edit; `before` says whether it runs before quantization.

    Its nodes carry sample shapes in `meta["tensor"]`, its inputs their TensorSpec, with free sizes, in `meta["input"]`.
    A method that runs after it is also told the float graph, the names of its inputs and calibration samples; one that
    runs before it and `sees` data is told the last two.
    """

    change: Callable[..., fx.GraphModule]
    before: bool = True
    exact: bool = True
    """The changed network computes the same function up to float rounding."""
    sees: bool = False
    learns: bool = False
    """It chooses much by its samples, and wants more of them than a mean takes."""
