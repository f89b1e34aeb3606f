"""Problems joined: layers in their own form, and in the forms of variants of the network.

A variant has every convolution that may in one form. What the layers of a choice cost is put together of the variants
that each is taken from: a chain costs what its convolutions do, and its loss is told of the chain as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from convkit.compress.option import Option
from convkit.compress.search.problem import Cost, Problem
from convkit.compress.search.sensitivity import Losses


@dataclass(frozen=True, slots=True)
class Part:
    """`problem` of a variant, and of each layer that has another form there its name and the convolutions it has."""

    problem: Problem
    forms: Mapping[str, tuple[str, Sequence[str]]]

    def cost(self, layer: str, plain: Option) -> Cost | None:
        """What the layer costs in its form and in the formats of `plain`; None where a convolution lacks these."""
        known = [self.problem.options.get(name, {}).get(plain) for name in self.forms[layer][1]]
        costs = [cost for cost in known if cost is not None]
        if len(costs) < len(known):
            return None
        return Cost(*(sum(cost[name] for cost in costs) for name in ("loss", "seconds", "bytes", "bops")))


def joined(problem: Problem, parts: Sequence[Part], losses: Losses) -> Problem:
    """`problem` with the options that `parts` open to its layers, as far as `losses` know them."""
    options = {layer: dict(known) for layer, known in problem.options.items()}
    for part in parts:
        for layer, (form, _) in part.forms.items():
            for plain in problem.options.get(layer, ()):
                cost, option = part.cost(layer, plain), replace(plain, form=form)
                if cost is not None and option in losses[layer]:
                    options[layer][option] = replace(cost, loss=losses[layer][option])
    return replace(problem, options=options)
