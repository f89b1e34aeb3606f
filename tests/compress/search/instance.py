"""Problems as a network has them: a chain of layers with skips, formats that trade loss for time, from a seed."""

import random

from convkit.compress.option import FLOAT, Option
from convkit.compress.search.problem import Cost, Edge, Problem

_BITS = {"fp32": 32, "bf16": 16, "fp8_e4m3": 8, "int8": 8, "uint8": 8, "int6": 6, "int4": 4}
OPTIONS = (
    FLOAT,
    Option("bf16", "bf16"),
    Option("fp8_e4m3", "fp8_e4m3"),
    Option("int8", "uint8"),
    Option("int6", "uint8"),
    Option("int4", "uint8"),
    Option("int4", "bf16"),
    Option("int8", "bf16"),
)
_TIME = {"fp32": 1.0, "bf16": 0.55, "fp8_e4m3": 0.5, "uint8": 0.3}
_CHANGE = {("fp32", "uint8"): 1.0, ("uint8", "fp32"): 0.8, ("bf16", "uint8"): 0.7}


def network(layers: int, edges: int, seed: int = 0, options: int = len(OPTIONS)) -> Problem:
    """`layers` x `options`, with `edges` between neighbours and over blocks of three."""
    draw = random.Random(seed)
    names = [f"layer{index}" for index in range(layers)]
    table = {name: _layer(draw, OPTIONS[:options]) for name in names}
    pairs = [(a, b) for skip in (1, 3) for a, b in zip(names, names[skip:], strict=False)][:edges]
    return Problem(table, tuple(_edge(draw, *pair) for pair in pairs), fixed=Cost(seconds=2e-4, bytes=4096))


def _layer(draw: random.Random, options: tuple[Option, ...]) -> dict[Option, Cost]:
    """Work and weights spread over two decades, sensitivity over three; 8 bits cost some 1e-4 of the signal."""
    macs, parameters = 10 ** draw.uniform(5, 7), 10 ** draw.uniform(3, 5)
    sensitivity = 10 ** draw.uniform(-1.5, 1.5)
    return {option: _cost(draw, option, macs, parameters, sensitivity) for option in options}


def _cost(draw: random.Random, option: Option, macs: float, parameters: float, sensitivity: float) -> Cost:
    weight, activation = _BITS[option.weight], _BITS[option.activation]
    noise = sum(4.0 ** (8 - min(bits, 12)) for bits in (weight, activation)) * draw.uniform(0.5, 2)
    seconds = macs * 1e-11 * _TIME[option.activation] * draw.uniform(0.8, 1.2)
    loss = 0.0 if option == FLOAT else 1e-6 * sensitivity * noise
    return Cost(loss, seconds, parameters * weight / 8, macs * weight * activation)


def _edge(draw: random.Random, producer: str, consumer: str) -> Edge:
    unit = 10 ** draw.uniform(-6, -5)
    return Edge(producer, (consumer,), unit, {change: unit * part for change, part in _CHANGE.items()})
