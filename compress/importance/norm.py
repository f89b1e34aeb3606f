"""By the norm of the filters that make a channel, over the mean of their layer's; needs no data.

Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, in the Euclidean norm.
"""

import torch

from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.shrinking.coupling import Coupling
from convkit.compress.shrinking.worth import by_makers


def norm(model: Model, coupled: Coupling, samples: Batches) -> dict[int, float]:
    """Of each class, the sum over the layers that make it."""
    del samples

    def sizes(filters: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.linalg.vector_norm(filters.flatten(1), dim=1)
        return found / found.mean().clamp(min=torch.finfo(found.dtype).tiny)

    return by_makers(model, coupled, sizes)


PART = norm
