"""Smart-watch activity (Burns et al., 2018): six sensors, 50 times a second, of ten people at seven exercises.

What three people did is what networks are scored on; they learn from the others. The package has its numbers in a
pickle, whose few kinds of values are read here: nothing that it names is called.
"""

import pickletools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.bench import packages

WINDOW, STEP = 128, 32
"""Moments of a sample, and from one to the next."""
SCORED = 3
_HEADER = 128
"""Bytes of the .npy file in front of the pickle."""
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
_VALUES = frozenset({"GLOBAL", "BINUNICODE", "BININT", "BININT1", "BININT2"})


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Series float32 [N, 6, WINDOW], of about the same size in every sensor, and classes int64 [N], of "train" or
    "test"."""
    file = packages.unpacked(packages.SEGLEARN) / "seglearn/data/watch_dataset.npy"
    (held,) = _array(_read(file.read_bytes()[_HEADER:]))
    series, labels = [_array(one) for one in held["X"]], _array(held["y"])
    people = _array(held["subject"])
    unseen = np.isin(people, np.unique(people)[-SCORED:])
    learnt = np.concatenate([one for one, is_scored in zip(series, unseen, strict=True) if not is_scored])
    mean, spread = learnt.mean(0), learnt.std(0)
    found = [
        (((one[at : at + WINDOW] - mean) / spread).T, label)
        for one, label, is_scored in zip(series, labels, unseen, strict=True)
        if is_scored == (name == "test")
        for at in range(0, len(one) - WINDOW + 1, STEP)
    ]
    return np.stack([one for one, _ in found]).astype(np.float32), np.array([int(label) for _, label in found])


def _array(held: Sequence[Any]) -> Any:
    """What an array's pickle says: (…, its type, its order, its bytes, which are letters there)."""
    _, _, (_, shape, (_, (kind, *_), (_, order, *_)), by_columns, content) = held
    if kind.startswith("O"):
        return content
    letters = content[1][0]
    numbers = np.frombuffer(letters.encode("latin1"), np.dtype(kind).newbyteorder(order if order in "<>" else "="))
    return numbers.reshape(shape, order="F" if by_columns else "C")


def _read(content: bytes) -> Any:
    """The values of a pickle; what would be called, or be built, as lists [name, arguments, state]."""
    stack: list[Any] = []
    marks: list[int] = []
    kept: dict[int, Any] = {}
    for code, argument, _ in pickletools.genops(content):
        name = code.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in {"EMPTY_LIST", "EMPTY_DICT"}:
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            marks.append(len(stack))
        elif name in {"BINPUT", "LONG_BINPUT"}:
            kept[argument] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            stack.append(kept[argument])
        elif name not in {"PROTO", "STOP"}:
            _combined(name, stack, marks)
    return stack[-1]


def _combined(name: str, stack: list[Any], marks: list[int]) -> None:
    """Make one of the values on top, in place."""
    counts = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "REDUCE": 2, "BUILD": 1}
    start = len(stack) - counts[name] if name in counts else marks.pop()
    values = stack[start:]
    del stack[start:]
    if name.startswith("TUPLE"):
        stack.append(tuple(values))
    elif name in {"APPEND", "APPENDS"}:
        stack[-1].extend(values)
    elif name == "SETITEMS":
        stack[-1].update(zip(values[::2], values[1::2], strict=True))
    elif name == "REDUCE":
        stack.append([*values, None])
    elif name == "BUILD":
        stack[-1][2] = values[0]
    else:
        raise ValueError(f"the file has a {name}, which is no number")
