"""Waves in random media by finite elements, and networks that take the place of a step of the solver.

u_tt = ∇·(c² ∇u) + f on the unit square between walls that reflect: linear triangles on a regular grid, lumped mass,
leap-frog in time. A source of random place and size sends one wavelet; the medium has a random background, a layer and
an inclusion. The network reads two frames and the speed and says the next frame, as in "A priori compression of
convolutional neural networks for wave simulators" (2023), whose own meshes and data are not public.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from scipy import sparse

SIDE, STEPS, SKIPPED = 33, 60, 4
"""Nodes along an edge, frames of a run, and steps of the solver between two frames."""
_COURANT = 0.4
"""The step by the time that a wave of the fastest medium takes from node to node; up to two thirds are stable."""
_SLOW, _FAST = 0.5, 1.5
"""Speeds of media."""


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [1740, 3, 33, 33]}, next frames [1740, 1, 33, 33]) of 30 runs."""
    return pairs(range(30))


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The same of 6 other runs."""
    return pairs(range(1000, 1006))


def pairs(seeds: range) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two frames and the speed, and the frame behind them, of the runs with these seeds."""
    import numpy as np

    read, wanted = [], []
    for seed in seeds:
        frames, speed = run(seed)
        for before, now, after in zip(frames, frames[1:], frames[2:], strict=False):
            read.append(np.stack([before, now, speed]))
            wanted.append(after[None])
    return {"input": np.stack(read).astype(np.float32)}, np.stack(wanted).astype(np.float32)


def run(seed: int, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Frames [steps, 33, 33] of one run, their largest amplitude 1, and the speed of its medium [33, 33]."""
    import numpy as np

    draw = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(0, 1, SIDE)] * 2)
    speed = _medium(draw, x, y)
    stiffness, mass = _elements(speed)
    step = _COURANT / (SIDE - 1) / _FAST
    source, beat = _source(draw, x, y, step * SKIPPED)
    before, now, frames = np.zeros(SIDE**2), np.zeros(SIDE**2), []
    for index in range((steps + 2) * SKIPPED):
        force = source * beat(index * step)
        after = 2 * now - before + step**2 * (force - (stiffness @ now) / mass)
        before, now = now, after
        if index % SKIPPED == 0 and index >= 2 * SKIPPED:
            frames.append(now.reshape(SIDE, SIDE))
    found = np.stack(frames[:steps])
    return found / np.abs(found).max(), speed


def _medium(draw: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Speed: a background, a layer and a disc, each of its own."""
    import numpy as np

    ground, layer, disc = draw.uniform(_SLOW, _FAST, 3)
    low, high = np.sort(draw.uniform(0, 1, 2))
    centre, radius = draw.uniform(0.2, 0.8, 2), draw.uniform(0.1, 0.25)
    speed = np.where((low < y) & (y < high), layer, ground)
    made: np.ndarray = np.where(np.hypot(x - centre[0], y - centre[1]) < radius, disc, speed)
    return made


def _elements(speed: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Stiffness of c² ∇u·∇v, and the lumped mass, with nodes row by row."""
    import numpy as np
    import skfem
    from skfem.helpers import dot, grad

    line = np.linspace(0, 1, SIDE)
    basis = skfem.Basis(skfem.MeshTri.init_tensor(line, line), skfem.ElementTriP1())
    places = basis.mesh.p
    rows = np.lexsort((places[0], places[1]))
    own = np.empty(SIDE**2)
    own[rows] = speed.ravel()
    form = skfem.BilinearForm(lambda u, v, w: w["speed"] ** 2 * dot(grad(u), grad(v)))
    mass = skfem.BilinearForm(lambda u, v, _: u * v).assemble(basis)
    stiffness = form.assemble(basis, speed=basis.interpolate(own))
    return stiffness[rows][:, rows].tocsr(), np.asarray(mass.sum(1)).ravel()[rows]


def _source(
    draw: np.random.Generator, x: np.ndarray, y: np.ndarray, frame: float
) -> tuple[np.ndarray, Callable[[float], float]]:
    """Where a source pushes [nodes], and Ricker's wavelet in time, which lasts some frames."""
    import numpy as np

    place, width = draw.uniform(0.2, 0.8, 2), draw.uniform(0.04, 0.08)
    where = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * width**2)).ravel()
    length = frame * draw.uniform(2.0, 4.0)

    def beat(time: float) -> float:
        at = ((time - 2 * length) / length) ** 2
        return float((1 - 2 * at) * np.exp(-at))

    return where, beat


class Simulator(nn.Module):
    """Two frames and the speed [N, 3, H, W] to the next frame [N, 1, H, W]: what it adds to a straight line."""

    def __init__(self, width: int = 32, depth: int = 6, kernel: int = 5) -> None:
        super().__init__()
        sizes = [3, *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for read, made in itertools.pairwise(sizes):
            layers += [nn.Conv2d(read, made, kernel, padding=kernel // 2), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as the data calls it
        """The next frame."""
        straight = 2 * input[:, 1:2] - input[:, :1]
        out: Tensor = straight + self.body(input)
        return out


def build(width: int = 32, depth: int = 6, kernel: int = 5) -> nn.Module:
    """The simulator, before training."""
    return Simulator(width, depth, kernel)


def factored(form: str = "one_way", share: float = 0.15, width: int = 32, depth: int = 6, kernel: int = 5) -> nn.Module:
    """The simulator with at most `share` of its parameters, in `form`, before training."""
    from convkit.compress import apriori

    network = build(width, depth, kernel)
    return apriori.rewrite(network, apriori.chosen(network, form, share))


def rolled(network: nn.Module, frames: np.ndarray, speed: np.ndarray, steps: int) -> np.ndarray:
    """What the network makes of its own frames: `steps` frames behind the first two [steps, H, W]."""
    import numpy as np

    before, now, medium = (torch.from_numpy(np.asarray(one, np.float32)) for one in (*frames[:2], speed))
    made = []
    with torch.inference_mode():
        for _ in range(steps):
            before, now = now, network(torch.stack([before, now, medium])[None])[0, 0]
            made.append(now.numpy())
    return np.stack(made)
