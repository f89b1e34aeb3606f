"""Numbers of channels, in classes that stand or fall together, some of which are held for a reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = 0
"""The number of what is no channel: what a Pad adds."""


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """Where a tensor has its channels: along `axis`, with their numbers, int64 [size]; one may stand several times."""

    axis: int
    labels: Tensor


class Classes:
    """Disjoint sets of channels (Tarjan, Efficiency of a good but not linear set union algorithm, 1975)."""

    def __init__(self) -> None:
        self._parent = [NOTHING]
        self._held: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Numbers of `count` channels that there were none of yet."""
        first = len(self._parent)
        self._parent += range(first, first + count)
        return torch.arange(first, first + count)

    def held(self, count: int, reason: str) -> Tensor:
        """The same, of channels that must stay."""
        made = self.new(count)
        self.hold(made, reason)
        return made

    def root(self, label: int) -> int:
        """What the class of `label` is called."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def roots(self, labels: Tensor) -> Tensor:
        """The same of many, of their shape."""
        distinct, places = torch.unique(labels, return_inverse=True)
        return torch.tensor([self.root(label) for label in distinct.tolist()], dtype=torch.int64)[places]

    def unite(self, ones: Tensor, others: Tensor) -> None:
        """Make one class of each of `ones` and the one of `others` at its place."""
        pairs = torch.unique(torch.stack([ones.flatten(), others.flatten()]), dim=1)
        for one, other in pairs.T.tolist():
            first, second = sorted((self.root(one), self.root(other)))
            if first != second:
                self._parent[second] = first
                reason = self._held.pop(second, "")
                if reason:
                    self._held.setdefault(first, reason)

    def unite_all(self, labels: Tensor) -> None:
        """Make one class of all of them."""
        flat = labels.flatten()
        self.unite(flat[:1].expand_as(flat), flat)

    def hold(self, labels: Tensor, reason: str) -> None:
        """These must stay, for `reason`; what was held before keeps its own."""
        for label in torch.unique(labels).tolist():
            if label != NOTHING:
                self._held.setdefault(self.root(label), reason)

    def reason(self, root: int) -> str:
        """Why the class must stay; "" where it need not."""
        return self._held.get(root, "")
