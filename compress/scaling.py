"""Fast compound scaling: a network made smaller before it is trained, mostly in width.

Dollar et al., Fast and Accurate Model Scaling, CVPR 2021: time follows the elements that layers write, not their
products; with products scaled by s these go by s^0.6 where width takes most of it, and by s^0.8 where all sizes share.
"""

from __future__ import annotations

from dataclasses import dataclass

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, clone
from convkit.compress.shrinking import cutting, levels, residual
from convkit.compress.shrinking.coupling import coupling

FAST = 0.8
"""α of the paper: the part of the products that width takes."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors of the number of layers, of channels, and of height and width: products go by depth width² size²."""

    depth: float
    width: float
    size: float


def compound(share: float, alpha: float = FAST) -> Scale:
    """The factors at which a network has `share` of its products (section 3.2)."""
    if not 0 < share <= 1:
        raise ConvkitError(f"a network is scaled to a part of its products, not to {share:g}", hint="give 0.5")
    return Scale(share ** ((1 - alpha) / 2), share ** (alpha / 2), share ** ((1 - alpha) / 4))


def scaled(model: Model, share: float, step: int = 8, alpha: float = FAST) -> Model:
    """`model`, whose nodes have shapes, at about `share` of its products: to be trained, on inputs that are smaller by
    `compound(share).size`.

    Widths are multiples of `step` where there are as many channels; of each stage of residual blocks the last are left
    out, the first always stays. Raises ConvkitError where no width may change.
    """
    scale, graph = compound(share, alpha), clone(model.graph)
    coupled = coupling(graph)
    if not coupled.families:
        first = next(iter(coupled.held.items()), ("", "it has no layers"))
        raise ConvkitError(f"no channel of {model.name} may go", hint=f"{first[0]}: {first[1]}".strip(": "))
    first_ones = {root: -float(root) for family in coupled.families for root in family.classes}
    stages = residual.stages(residual.blocks(graph))
    out = [block.name for stage in stages for block in stage[max(1, round(scale.depth * len(stage))) :]]
    gone = levels.never_empty(coupled, levels.uniform(coupled, first_ones, scale.width, step), first_ones)
    cutting.cut(graph, coupled, gone)
    return model.replace(graph=residual.leave_out(graph, out)) if out else model.replace(graph=graph)
