"""Weights files: safetensors, or a state dict read without unpickling; fitted to a module by name and shape."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from convkit.compress import adopting, archive, package
from convkit.compress.errors import ConvkitError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIX = "module."
_SHOWN = 3
_LOG = logging.getLogger(__name__)


def install(module: nn.Module, path: str) -> None:
    """Load the weights in the file `path` into `module`.

    A state dict inside a checkpoint ("state_dict", "model") and DataParallel's "module." before every name are taken
    off, and said on stderr. Raises ConvkitError that names what is missing, unexpected or of another shape.
    """
    path = package.resolve(path)
    try:
        state = adopting.adopted(module, _unwrapped(_read(Path(path)), path))
    except ValueError as error:
        raise ConvkitError(f"{path} does not fit the network: {error}", hint="check --weights and --arg") from error
    _check_names(module, state, path)
    _check_shapes(module, state, path)
    module.load_state_dict(state, strict=False)


def check_finite(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Raise ConvkitError that names the first tensor with a NaN or an infinity.

    A buffer may be a mask with infinities; a running mean or variance may not.
    """
    for name, tensor in [*parameters.items(), *buffers.items()]:
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
            continue
        nan = bool(tensor.isnan().any())
        if nan or name in parameters or "running_" in name:
            what = "NaN" if nan else "infinite values"
            raise ConvkitError(f"weight {name!r} holds {what}", hint="use a checkpoint whose training did not diverge")


def _read(path: Path) -> object:
    if not path.is_file():
        raise ConvkitError(f"there is no weights file {path}", hint="check --weights")
    if path.stat().st_size == 0:
        raise ConvkitError(f"the weights file {path} is empty", hint="fetch it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        archive.check_zip(path, str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except ConvkitError:
        raise
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            hint = "save model.state_dict() alone, best as .safetensors"
            raise ConvkitError(f"{path} needs unpickling, which runs code", hint=hint) from error
        raise ConvkitError(
            f"{path} is no state dict, or is broken", hint="give .safetensors or a state dict"
        ) from error


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConvkitError(f"{path} is no safetensors file, or is broken", hint="fetch or save it again") from error


def _unwrapped(read: object, path: str) -> dict[str, Tensor]:
    """The state dict itself; what is taken off is said."""
    for wrapper in _WRAPPERS:
        if isinstance(read, Mapping) and isinstance(read.get(wrapper), Mapping):
            read = read[wrapper]
            _LOG.warning("%s: using the state dict under %r", path, wrapper)
    if not isinstance(read, Mapping):
        raise ConvkitError(f"{path} holds a {type(read).__name__}, not a state dict", hint="save model.state_dict()")
    state = {str(name): value for name, value in read.items()}
    if state and all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
        _LOG.warning("%s: taking %r off every name", path, _PREFIX)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ConvkitError(f"{path}: {name!r} is no tensor", hint="save model.state_dict() alone")
    return state


def _check_names(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Counters of batch norm may be absent: old checkpoints and safetensors of other tools leave them out."""
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    parts = [f"{word} {_some(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names]
    if parts:
        raise ConvkitError(f"{path} does not fit the network: {'; '.join(parts)}", hint="check --weights and --arg")


def _check_shapes(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    own = module.state_dict()
    wrong = [
        f"{name!r} is {_size(value)}, the network's {_size(own[name])}"
        for name, value in state.items()
        if tuple(value.shape) != tuple(own[name].shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConvkitError(f"{path} does not fit the network: {wrong[0]}{more}", hint="check --weights and --arg")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(repr(name) for name in listed[:_SHOWN]) + more
