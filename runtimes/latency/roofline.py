"""The roofline: what a network takes where nobody measured, from two or three figures of the device.

A kernel takes as long as its arithmetic or its traffic, whichever is longer (Williams, Waterman & Patterson, Roofline,
CACM 2009), and something to be started. It ranks layers; it does not tell milliseconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from convkit.compress import format as formats
from convkit.compress.analysis import LayerAnalysis, analyse
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Integer
from convkit.compress.model import Model
from convkit.compress.target import Roofline, Target
from convkit.runtimes.latency.structure import Structure, Tensor, structure
from convkit.runtimes.latency.table import Fingerprint, LatencyTable

_FLOAT_BYTES = 4


def estimate(model: Model, target: Target, methods: Sequence[str], floating: str = "fp32") -> LatencyTable:
    """A table for the `model` prepared by `methods` from the figures of `target`, marked as estimated.

    Raises ConvkitError where the target has none.
    """
    roof = target.roofline
    if roof is None:
        raise ConvkitError(
            f"nothing is known of the speed of {target.name}", hint="give its data a roofline, or measure on the device"
        )
    network = structure(model, target)
    others = [name for name in target.formats if _is_float(name) and target.runs_layers_in(name)]
    kinds = {name: (floating, *_low(network, name, others)) for name in network.layers}
    known = {layer.name: layer for layer in analyse(model).layers}
    layers = {
        name: {number: _kernel(known[name], number, roof) for number in numbers if name in known}
        for name, numbers in kinds.items()
    }
    changes = {tensor.name: dict(_changes(kinds, tensor, roof, floating)) for tensor in network.tensors}
    fingerprint = Fingerprint(model.digest, target.name, target.engine, "", {}, {"methods": list(methods)})
    return LatencyTable(fingerprint, True, floating, layers, network.tensors, changes, rest=0.0)


def _kernel(layer: LayerAnalysis, number: str, roof: Roofline) -> float:
    """Seconds of one layer whose numbers are all in the format `number`."""
    rates = roof.macs_per_second
    arithmetic = layer.macs / rates.get(number, min(rates.values()))
    traffic = layer.bytes / _FLOAT_BYTES * _bytes(number) / roof.bytes_per_second
    return max(arithmetic, traffic) + roof.layer_seconds


def _low(network: Structure, name: str, others: Sequence[str]) -> Iterator[str]:
    """What a layer may run in beside float."""
    if name in network.low:
        yield network.low[name]
        yield from (other for other in others if other != network.low[name])


def _is_float(name: str) -> bool:
    """Integers' activations are told by the target's rules."""
    return not isinstance(formats.load(name), Integer)


def _changes(
    kinds: Mapping[str, tuple[str, ...]], tensor: Tensor, roof: Roofline, floating: str
) -> Iterator[tuple[str, float]]:
    """A pass over the tensor: read in one format, written in the other."""
    numbers = dict.fromkeys(n for name in (tensor.producer, *tensor.readers) for n in kinds.get(name, (floating,)))
    for before, after in itertools.permutations(numbers, 2):
        traffic = tensor.elements * (_bytes(before) + _bytes(after)) / roof.bytes_per_second
        yield f"{before}>{after}", traffic + roof.layer_seconds


def _bytes(number: str) -> float:
    return formats.load(number).bits / 8
