"""The simulation on all samples: what a network says that takes one, but not many at once."""

import numpy as np
import pytest

from convkit.cli import batches
from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from tests.cli.quantizable import samples
from tests.compress.network import Net, residual


def alone(*shape: int | str) -> Model:
    """Its Reshape knows of one sample only, and the product behind it of that one's numbers."""
    net = Net(*shape)
    flat = net.op("Reshape", net.op("Relu", "x"), net.weight(np.int64([1, 192])))
    return net.model(net.op("Gemm", flat, net.weight(net.normal(5, 192, gain=0.1)), name="scores", transB=1))


def test_a_network_that_takes_one_sample_at_a_time_says_how_to_give_it() -> None:
    model, data = alone("N", 3, 8, 8), Data(samples(6), None, "")
    with pytest.raises(ConvkitError, match="net takes one sample, but not 4 at once: ") as refusal:
        batches.run(model, data, 4)
    assert refusal.value.hint == "give --shape x:1x3x8x8, or export it with a free batch"
    assert batches.run(alone(1, 3, 8, 8), data, 1)["scores"].shape == (6, 5)


@pytest.mark.parametrize(("first", "size"), [("N", 4), ("N", 1), (4, 4)])
def test_what_no_sample_goes_through_is_no_matter_of_batches(first: int | str, size: int) -> None:
    data = Data({"x": np.zeros((4, 2, 8, 8), np.float32)}, None, "")
    with pytest.raises(RuntimeError, match="channels") as error:
        batches.run(residual(first, 3, 8, 8).model("scores"), data, size)
    assert not isinstance(error.value, ConvkitError)
