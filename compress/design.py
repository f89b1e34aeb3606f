"""Networks made smaller or easier for hardware before they are trained, or trained further: as a factory has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convkit.compress import apriori, codesign, function, scaling

if TYPE_CHECKING:
    from torch import nn


def made(
    path: str,
    arguments: Mapping[str, Any],
    weights: str | None = None,
    *,
    deform: Sequence[str] = (),
    products: float | None = None,
    step: int = 8,
    shapes: Sequence[str] = (),
) -> nn.Module:
    """The network of the function `path`, with `weights` of its own, its deformable convolutions as `deform` says, and
    at about `products` of its products: to be trained.

    `shapes` are its inputs', as `--shape` has them, which scaling needs. Raises ConvkitError as `codesigned` and
    `scaled`.
    """
    module: nn.Module = apriori.loaded(function.load(path)(**arguments), weights)
    if deform:
        codesign.codesigned(module, *deform)
    return module if products is None else _scaled(module, path, products, step, shapes)


def _scaled(module: nn.Module, path: str, products: float, step: int, shapes: Sequence[str]) -> nn.Module:
    from convkit.compress.model import ModelRef, parse_shape, with_shapes
    from convkit.compress.sources import factory

    model = factory.from_module(module.eval(), ModelRef(path, shapes=dict(map(parse_shape, shapes))))
    return scaling.scaled(with_shapes(model), products, step).graph.train()
