"""Where an aten node stands in the source: its layer, its name, its line; and silence while torch traces."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
_LAYER = re.compile(r"(conv\w*|linear)$", re.IGNORECASE)
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "Module")


def of(node: fx.Node) -> tuple[str, str]:
    """The layer a node belongs to, and a name for its result.

    The result of torch's own modules (`layer1.0.relu`) is named after them, what a module of the user's computes
    itself after the module and the operator (`layer1.0.add`).
    """
    path, kind = _innermost(node)
    operator = str(getattr(node.target, "_opname", node.name)).strip("_")
    own = kind.startswith("torch.nn.modules.") and not kind.endswith(_CONTAINERS)
    if operator.startswith(("conv", "linear")):  # a user's WSConv2d, torch's ParametrizedConv2d
        own = own or bool(_LAYER.search(kind))
    label = path if path and own else f"{path}.{operator}".lstrip(".")
    return path, re.sub(r"[^\w.]", "_", label)


def stack(node: fx.Node) -> list[tuple[str, str]]:
    """Names and classes of the layers that a node stands in, the outermost first."""
    layers = (node.meta.get("nn_module_stack") or {}).values()
    return [
        (path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}") for path, kind in layers
    ]


def _innermost(node: fx.Node) -> tuple[str, str]:
    for path, kind in reversed(stack(node)):
        if not path.startswith("_empty_nn_module_stack"):
            # A module's second call is marked `relu@1`.
            return re.sub(r"@\d+", "", path), kind
    return "", ""


def line(node: fx.Node) -> str:
    """` (FILE:LINE)` of the user's own code that made the node, or nothing where that is not known."""
    frames = [(m["file"], m["line"]) for m in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [(file, number) for file, number in frames if not is_torch(file)]
    return f" ({own[-1][0]}:{own[-1][1]})" if own else ""


def is_torch(file: str) -> bool:
    """Whether a source file is torch's own; its traces cut the path to the package away."""
    return file.startswith("torch/") or Path(torch.__file__).parent in Path(file).parents


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's log, warnings and prints to itself: what matters comes back as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
