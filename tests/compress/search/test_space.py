"""The Problem of a network: what its borders pay, and what no file of it could say."""

import math

import pytest

from convkit.compress import graph as graphs
from convkit.compress import placement
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.model import Model
from convkit.compress.option import FLOAT, Option
from convkit.compress.search import budget
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost, Edge, Problem
from convkit.compress.target import Target
from tests.compress.network import EXACT, Net, batches, residual

TARGET = targets.load("onnxruntime-cpu")
INT8, KERNEL = Option("int8", "uint8"), Option("uint8", "uint8")
CHANGE = {("fp32", "uint8"): 1.0, ("uint8", "fp32"): 2.0}


@pytest.fixture(scope="module")
def model() -> Model:
    given = residual().model("scores")
    return prepare(given, EXACT, batches(given))


def problem(model: Model, found: spaces.Options, *edges: Edge, target: Target = TARGET) -> Problem:
    layers = placement.place(model.graph, target)
    seconds = {name: {"fp32": 8.0, target.activation: 4.0} for name in layers}
    losses = {name: dict.fromkeys(options, 1.0) for name, options in found.items()}
    return spaces.problem(model, target, layers, found, losses, spaces.Times(seconds, edges), Cost())


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "trt-rtx"])
def test_weights_that_only_save_storage_take_what_float_does(model: Model, target: str) -> None:
    """Codes of INT4 are codes of INT8 kernels, unpacked or a byte each; nothing multiplies floats with INT8."""
    known = targets.load(target)
    found = spaces.options(model, known, ["int8", "int4", "e3m4"])
    costs = problem(model, found, target=known).options[next(name for name in found if name.startswith("conv"))]
    taken = {option.weight: cost.seconds for option, cost in costs.items()}
    assert taken == {"fp32": 8.0, "int8": 4.0, "int4": 4.0, "e3m4": 8.0}


def test_what_others_read_in_float_is_paid_by_its_producer_once(model: Model) -> None:
    found = spaces.options(model, TARGET, ["int8"])
    first, second, *_ = (name for name in found if name.startswith("conv"))
    free = {first: found[first], second: found[second]}
    made = problem(model, free, Edge(first, (second, "elsewhere"), directed=CHANGE))
    plain = problem(model, free)
    for plan, more in {(FLOAT, FLOAT): 0, (INT8, FLOAT): 2, (INT8, INT8): 2, (FLOAT, INT8): 1}.items():
        formats = dict(zip(free, plan, strict=True))
        assert made.cost(formats).seconds - plain.cost(formats).seconds == more


def test_what_the_network_is_given_is_in_float(model: Model) -> None:
    found = spaces.options(model, TARGET, ["int8"])
    first, second, *_ = (name for name in found if name.startswith("conv"))
    free = {first: found[first], second: found[second]}
    made = problem(model, free, Edge("", (first, second), directed=CHANGE, given="fp32"))
    plain = problem(model, free)
    for plan, more in {(FLOAT, FLOAT): 0, (INT8, FLOAT): 1, (INT8, INT8): 1}.items():
        formats = dict(zip(free, plan, strict=True))
        assert made.cost(formats).seconds - plain.cost(formats).seconds == more


def test_no_choice_runs_an_operator_low_on_numbers_in_float(model: Model) -> None:
    """It is placed in float there, and the choice would promise what no file takes."""
    found = spaces.options(model, TARGET, ["int8"])
    conv = next(name for name in found if name.startswith("conv"))
    made = problem(model, found, Edge(conv, ("sum",), directed=CHANGE))
    assert math.isinf(made.cost(dict.fromkeys(found, FLOAT) | {"sum": KERNEL}).seconds)
    fastest = budget.nearest(made, "seconds")
    assert fastest is not None
    assert fastest.formats["sum"] == KERNEL
    assert fastest.formats[conv] != FLOAT


def test_a_weight_in_float_that_layers_share_is_bytes_once() -> None:
    net = Net("N", 4, 8, 8)
    second = net.conv(net.op("Relu", net.conv("x", 4, 3)), 4, 3)
    given = net.model(net.conv(net.op("Relu", second), 4))
    made = prepare(given, EXACT, batches(given))
    one, other, last = [node for node in graphs.computes(made.graph) if node.op == "call_module"]
    name, modules = graphs.key(last), [graphs.module(node) for node in (one, other)]
    found = {name: spaces.options(made, TARGET, ["int8"])[name]}
    apart = problem(made, found).cost({name: FLOAT}).bytes
    held = sum(tensor.numel() * tensor.element_size() for tensor in modules[1].parameters())
    modules[1].weight = modules[0].weight
    assert apart - problem(made, found).cost({name: FLOAT}).bytes == held


@pytest.mark.parametrize(("floating", "seconds"), [("fp32", 3.0), ("bf16", 2.0), ("fp16", 8.0)])
def test_layers_without_a_choice_take_what_they_do_in_float(model: Model, floating: str, seconds: float) -> None:
    # However slow their other kernels are; what is not known in that format takes what the slowest does.
    layers = placement.place(model.graph, TARGET)
    times = {name: {"fp32": 3.0, "bf16": 2.0, "uint8": 8.0} for name in layers}
    option = Option(floating, floating)
    made = spaces.problem(model, TARGET, layers, {}, {}, spaces.Times(times), Cost(seconds=1.0), option)
    assert made.cost({}).seconds == 1.0 + seconds * len(layers)
