"""By how much of the filters that make a channel does anything, and how unlike those of other channels they are.

The statistics of Gavrikov and Keuper, CNN Filter DB, CVPR 2022: sparsity and orthogonality, of each output.
"""

import torch

from convkit.compress import filters as statistics
from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.shrinking.coupling import Coupling
from convkit.compress.shrinking.worth import by_makers


def filters(model: Model, coupled: Coupling, samples: Batches) -> dict[int, float]:
    """Of each class, the sum over the layers that make it of the share of its filters that does something, times one
    less its largest cosine with another output's; needs no data."""
    del samples

    def alive(held: torch.Tensor) -> torch.Tensor:
        return statistics.alive(held).double().mean(1) * statistics.apart(held.flatten(1))

    return by_makers(model, coupled, alive)


PART = filters
