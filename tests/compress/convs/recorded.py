"""What the authors' own code computed: recorded/NAME.VARIANT.safetensors, made by running it beside convkit.

A file holds their state dict (`state/…`), what their layer read (`input/0` …) and gave (`output/0` …), and says in its
metadata which `layer` of compress/convs/NAME.py with which `arguments` that is, and the `source`: whose code, which
version. Axes of inputs and outputs are convkit's. Among the arguments "@NAME" stands for a tensor of the state, and
{"torch.nn:Conv2d": {…}} for a module. `mode`: "train" where their layer was training; `call`: "list" where it takes its
inputs as one list.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Recorded:
    """One of them: the layer that convkit has for it, with the authors' weights, their inputs and outputs."""

    layer: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]
    as_list: bool
    source: str

    def run(self) -> list[Tensor]:
        """What convkit's layer gives."""
        with torch.no_grad():
            made = self.layer(self.inputs) if self.as_list else self.layer(*self.inputs)
        return [made] if isinstance(made, Tensor) else list(made)


def read(name: str) -> Recorded:
    """The record of this name, its weights loaded, none left over and none missing."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        told: dict[str, str] = file.metadata()
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    state = {key.removeprefix("state/"): tensor for key, tensor in tensors.items() if key.startswith("state/")}
    module = importlib.import_module(f"convkit.compress.convs.{name.split('.', maxsplit=1)[0]}")
    arguments = {key: _argument(value, state) for key, value in json.loads(told["arguments"]).items()}
    layer: nn.Module = getattr(module, told["layer"])(**arguments)
    layer.load_state_dict(state, strict=True)
    layer.train(told.get("mode") == "train")
    parts = {part: [tensors[key] for key in tensors if key.startswith(part)] for part in ("input/", "output/")}
    return Recorded(layer, parts["input/"], parts["output/"], told.get("call") == "list", told["source"])


def _argument(value: Any, state: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith("@"):
        return state.pop(value[1:])
    if isinstance(value, Mapping):
        ((name, arguments),) = value.items()
        module, kind = name.split(":")
        return getattr(importlib.import_module(module), kind)(**arguments)
    return value
