"""Recurrent layers: x [T, N, I] (layout 1: [N, T, I]), weights [directions, gates · H, I]; every direction one loop."""
# ruff: noqa: N802, ARG001, PLR0913 - functions are named after their ONNX operators and take all their attributes

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "hardsigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
}
_State = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction's step: (projected input [N, gates·H], state) -> state, whose first member is the output."""

    project: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, _State], _State]


def _activations(
    names: Sequence[str] | None, default: Sequence[str], direction: int
) -> list[Callable[[Tensor], Tensor]]:
    listed = list(names) if names else list(default) * 2
    chosen = listed[direction * len(default) : (direction + 1) * len(default)]
    unknown = [name for name in chosen if name.lower() not in _ACTIVATIONS]
    if unknown:
        raise ValueError(f"no recurrent activation {unknown[0]!r}")
    return [_ACTIVATIONS[name.lower()] for name in chosen]


def _limit(x: Tensor, clip: float | None) -> Tensor:
    return x if clip is None else x.clamp(-clip, clip)


def _run(cell: _Cell, x: Tensor, state: _State, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, _State]:
    """All outputs [T, N, H] of one direction, and its last state; past a sequence's length the output is 0."""
    projected = cell.project(x)
    steps = range(x.shape[0])
    outputs = list(steps)
    results: list[Tensor] = [x] * len(outputs)
    for t in reversed(steps) if reverse else steps:
        new = cell.step(projected[t], state)
        if lengths is None:
            state, results[t] = new, new[0]
            continue
        alive = (lengths > t).reshape(-1, 1)
        state = tuple(torch.where(alive, n, old) for n, old in zip(new, state, strict=True))
        results[t] = torch.where(alive, new[0], torch.zeros_like(new[0]))
    return torch.stack(results), state


def _recurrent(
    cells: list[_Cell], x: Tensor, states: list[Tensor], lengths: Tensor | None, direction: str, layout: int
) -> tuple[Tensor, ...]:
    """Y [T, directions, N, H], then each state's last value [directions, N, H]."""
    sequence = x.transpose(0, 1) if layout else x
    given = [state.transpose(0, 1) if layout else state for state in states]
    outputs, last = [], []
    for d, cell in enumerate(cells):
        reverse = direction == "reverse" or d == 1
        y, state = _run(cell, sequence, tuple(s[d] for s in given), lengths, reverse)
        outputs.append(y)
        last.append(state)
    y = torch.stack(outputs, 1)
    ends = [torch.stack([state[i] for state in last]) for i in range(len(given))]
    if layout:
        return y.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends)
    return y, *ends


def _initial(given: Tensor | None, x: Tensor, directions: int, hidden: int, layout: int) -> Tensor:
    if given is not None:
        return given
    batch = x.shape[0] if layout else x.shape[1]
    return x.new_zeros((batch, directions, hidden) if layout else (directions, batch, hidden))


def LSTM(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(Y, Y_h, Y_c); gates in ONNX's order i, o, f, c; `p` holds the peepholes of i, o, f."""
    directions, hidden = r.shape[0], r.shape[2]

    def cell(d: int) -> _Cell:
        f, g, h = _activations(activations, ("Sigmoid", "Tanh", "Tanh"), d)
        bias = b[d, : 4 * hidden] + b[d, 4 * hidden :] if b is not None else None
        peep = p[d].chunk(3) if p is not None else (x.new_zeros(()),) * 3

        def step(now: Tensor, state: _State) -> _State:
            last_h, last_c = state
            i, o, forget, c = (now + last_h @ r[d].T).chunk(4, 1)
            enter = f(_limit(i + peep[0] * last_c, clip))
            keep = 1 - enter if input_forget else f(_limit(forget + peep[2] * last_c, clip))
            new_c = keep * last_c + enter * g(_limit(c, clip))
            return f(_limit(o + peep[1] * new_c, clip)) * h(new_c), new_c

        return _Cell(lambda sequence: F.linear(sequence, w[d], bias), step)

    states = [_initial(state, x, directions, hidden, layout) for state in (initial_h, initial_c)]
    y, last_h, last_c = _recurrent([cell(d) for d in range(directions)], x, states, sequence_lens, direction, layout)
    return y, last_h, last_c


def GRU(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, Tensor]:
    """(Y, Y_h); gates in ONNX's order z, r, h."""
    directions, hidden = r.shape[0], r.shape[2]

    def cell(d: int) -> _Cell:
        f, g = _activations(activations, ("Sigmoid", "Tanh"), d)
        wb, rb = b[d].chunk(2) if b is not None else (x.new_zeros(3 * hidden),) * 2

        def step(now: Tensor, state: _State) -> _State:
            (last,) = state
            zx, rx, hx = now.chunk(3, 1)
            zr, rr = F.linear(last, r[d, : 2 * hidden], rb[: 2 * hidden]).chunk(2, 1)
            update, reset = f(_limit(zx + zr, clip)), f(_limit(rx + rr, clip))
            weight, bias = r[d, 2 * hidden :], rb[2 * hidden :]
            if linear_before_reset:
                candidate = g(_limit(hx + reset * F.linear(last, weight, bias), clip))
            else:
                candidate = g(_limit(hx + F.linear(reset * last, weight, bias), clip))
            return ((1 - update) * candidate + update * last,)

        return _Cell(lambda sequence: F.linear(sequence, w[d], wb), step)

    state = _initial(initial_h, x, directions, hidden, layout)
    y, last = _recurrent([cell(d) for d in range(directions)], x, [state], sequence_lens, direction, layout)
    return y, last


def RNN(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, Tensor]:
    """(Y, Y_h)."""
    directions, hidden = r.shape[0], r.shape[2]

    def cell(d: int) -> _Cell:
        (f,) = _activations(activations, ("Tanh",), d)
        bias = b[d, :hidden] + b[d, hidden:] if b is not None else None
        return _Cell(
            lambda sequence: F.linear(sequence, w[d], bias),
            lambda now, state: (f(_limit(now + state[0] @ r[d].T, clip)),),
        )

    state = _initial(initial_h, x, directions, hidden, layout)
    y, last = _recurrent([cell(d) for d in range(directions)], x, [state], sequence_lens, direction, layout)
    return y, last
