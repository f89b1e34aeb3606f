"""Which channels go together, and what is said of those that may not."""

import pytest
import torch
from torch import Tensor, nn

from convkit.compress.apply import prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.shrinking import shrink
from convkit.compress.shrinking.coupling import coupling
from tests.compress.network import residual
from tests.compress.shrinking.test_cutting import Body, Grouped, made


def test_what_is_added_goes_together() -> None:
    """The stem and the projection of a residual block have one width, the expansion and its depthwise layer another."""
    model = prepare(residual().model("scores"), ("simplify", "fold_batch_norm"))
    coupled = coupling(model.graph)
    widths = {family.name: family.width for family in coupled.families}
    made_by = [set(family.made_by) for family in coupled.families]
    assert sorted(widths.values()) == [8, 16]
    assert all(len(names) == 2 for names in made_by)
    assert "scores" in next(iter(coupled.held)) or any("output" in reason for reason in coupled.held.values())


def test_groups_go_whole() -> None:
    coupled = coupling(made(Grouped(4, 8), 3, 8, 8).graph)
    (family,) = [one for one in coupled.families if one.name == "first"]
    assert family.channels == (3, 3, 3, 3)
    assert family.made_by == ("first", "middle_conv")


class Sorted(Body):
    def middle(self, x: Tensor) -> Tensor:
        return torch.topk(x, x.shape[1], 1).values


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x) + x)
        return found


@pytest.mark.parametrize(
    ("module", "reason"),
    [(lambda: Sorted(8, 8), "TopK"), (Added, "it is an input of the network")],
    ids=["sorted", "added to the input"],
)
def test_what_may_not_go_says_why(module: type[nn.Module], reason: str) -> None:
    coupled = coupling(made(module(), 3, 8, 8).graph)
    assert reason in coupled.held["first"]
    assert coupled.held["last"] == "it is an output of the network"
    with pytest.raises(ConvkitError, match=r"the width of 'first' must stay"):
        shrink.check(coupled, {"first": 2})


def test_widths_that_cannot_be() -> None:
    coupled = coupling(made(Grouped(4, 8), 3, 8, 8).graph)
    with pytest.raises(ConvkitError, match="cannot be 13 wide") as told:
        shrink.check(coupled, {"first": 13})
    assert told.value.hint == "it may have 3 to 12 channels in steps of 3"
    with pytest.raises(ConvkitError, match="'middle_conv' has the width of 'first'"):
        shrink.check(coupled, {"middle_conv": 4})
    with pytest.raises(ConvkitError, match="no layer 'frist'") as told:
        shrink.check(coupled, {"frist": 4})
    assert told.value.hint == "did you mean 'first'?"
