"""Every novel convolution: as a layer, traced into a Model, folded, and sample by sample."""

from collections.abc import Iterator

import pytest
import torch

from convkit.compress import parts
from convkit.compress.apply import prepare
from convkit.compress.conv import FOLDER, TIERS, Conv, Example
from convkit.compress.model import Model, ModelRef, parse_shape
from convkit.compress.sources import factory

FOLDS = ("simplify", "fold_batch_norm", "merge_parallel")
CLOSE = 1e-5


def examples() -> Iterator[tuple[str, int]]:
    """Part and number of each example."""
    for name in parts.names(FOLDER):
        for index, _ in enumerate(made(name)):
            yield name, index


def made(name: str) -> list[Example]:
    torch.manual_seed(0)
    part: Conv = parts.load(FOLDER, name)
    return list(part.examples())


def traced(example: Example, sizes: str = "N") -> Model:
    sizes = "1" if example.batches == (1,) else sizes
    shapes = [parse_shape(f"{key}:{'x'.join([sizes, *map(str, shape)])}") for key, shape in example.shapes.items()]
    return factory.from_module(example.layer.eval(), ModelRef("convs:example", shapes=dict(shapes)))


def inputs(example: Example, batch: int, seed: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch if seed is None else seed)
    return {key: torch.randn(batch, *shape, generator=generator) for key, shape in example.shapes.items()}


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest error over the largest value."""
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(params=list(examples()), ids=lambda one: "-".join(map(str, one)))
def example(request: pytest.FixtureRequest) -> Example:
    name, index = request.param
    return made(name)[index]


@pytest.mark.parametrize("name", parts.names(FOLDER))
def test_a_conv_is_described(name: str) -> None:
    part: Conv = parts.load(FOLDER, name)
    assert part.tier in TIERS
    assert part.paper
    assert all(layer.__module__ == f"convkit.compress.convs.{name}" for layer in part.layers)
    held = {type(module) for one in made(name) for module in one.layer.modules()}
    assert held >= set(part.layers), "a layer has no example"


def test_traced_and_folded_it_computes_the_same(example: Example) -> None:
    model = traced(example)
    folded = prepare(model, FOLDS)
    for batch in example.batches:
        given = inputs(example, batch)
        with torch.no_grad():
            wanted = example.layer(**given)
        for one in (model, folded):
            assert off(one(given)["output"], wanted) <= CLOSE


def test_samples_do_not_meet(example: Example) -> None:
    """Each alone is what it is in a batch."""
    if len(example.batches) == 1:
        pytest.skip("it takes one sample at a time, as its documentation says")
    given = inputs(example, 3)
    with torch.no_grad():
        together = example.layer.eval()(**given)
        for index in range(3):
            alone = example.layer(**{key: x[index : index + 1] for key, x in given.items()})
            assert off(alone, together[index : index + 1]) <= CLOSE
