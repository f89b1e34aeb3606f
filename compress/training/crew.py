"""A crew: the processes that train together, to the result of one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Crew:
    """This is number `rank` of `size` processes."""

    rank: int = 0
    size: int = 1

    def check(self, batch: int, shards: int) -> None:
        """Raise ConvkitError unless a batch is `shards` equal parts, as many for each process."""
        if batch % shards or shards % self.size:
            raise ConvkitError(
                f"a batch of {batch} in {shards} shards does not go into {self.size} processes",
                hint="give --batch and --shards that do",
            )

    def shards(self, count: int) -> range:
        """The shards of a batch that are this process's."""
        return range(self.rank, count, self.size)

    def summed(self, tensors: list[Tensor]) -> None:
        """The sum of all processes' in place of each one's."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))


def check_alone(what: str) -> None:
    """Raise ConvkitError where torchrun started several processes, each of which would do all of `what`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConvkitError(f"{what} trains in one process", hint="leave out torchrun")


@contextmanager
def crew() -> Iterator[Crew]:
    """The processes that torchrun started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Crew()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield Crew(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
