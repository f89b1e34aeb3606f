"""The real architectures of this folder, made small: how to load each, and another size that it takes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convkit.compress.model import Model, ModelRef, clone, load, parse_shape


@dataclass(frozen=True)
class Net:
    shape: str
    other: tuple[int, ...]
    """Another size that the shape allows: an odd batch, and another image where that is free."""
    args: Mapping[str, Any] = field(default_factory=dict)


NETS = {
    "resnet": Net("x:Nx3xH=64xW=64", (3, 3, 75, 50), {"width": 8, "classes": 10}),
    "resnet50": Net("x:Nx3x64x64", (3, 3, 64, 64), {"depth": 50, "width": 8, "classes": 10}),
    "mobilenet_v2": Net("x:Nx3xH=64xW=64", (5, 3, 96, 33), {"width": 0.25, "classes": 10}),
    "mobilenet_v3": Net("x:Nx3x64x64", (3, 3, 64, 64), {"width": 0.5, "classes": 10}),
    "efficientnet": Net("x:Nx3x64x64", (3, 3, 64, 64), {"width": 0.25, "classes": 10}),
    "convnext": Net("x:Nx3xH=64xW=64", (3, 3, 96, 64), {"width": 8, "depths": (1, 1, 2, 1), "classes": 10}),
    "regnet": Net("x:Nx3x64x64", (3, 3, 64, 64), {"depths": (1, 1, 2, 1), "widths": (16, 24, 32, 40), "classes": 10}),
    "shufflenet": Net("x:Nx3xH=64xW=64", (3, 3, 32, 96), {"repeats": (2, 2, 2), "channels": (8, 16, 24, 32, 40)}),
    "unet": Net("x:Nx3xH=32xW=48", (3, 3, 37, 50), {"width": 8, "depth": 2}),
    "espcn": Net("x:Nx1xH=24xW=24", (3, 1, 17, 30), {"width": 16}),
    "watch": Net("series:Nx6xT=100", (3, 6, 77)),
    "volume": Net("volume:Nx1xD=8xH=16xW=16", (3, 1, 4, 24, 8), {"width": 4}),
}


def ref(name: str) -> ModelRef:
    net = NETS[name]
    return ModelRef(f"tests.nets.{name.rstrip('0').rstrip('5')}:net", None, net.args, dict([parse_shape(net.shape)]))


def loaded(name: str) -> Model:
    """The network itself, the caller's own: tracing takes seconds, and is done once."""
    model = _loaded(name)
    return model.replace(graph=clone(model.graph))


@functools.cache
def _loaded(name: str) -> Model:
    return load(ref(name))
