"""The user's own PyTorch code: `package.module:function` (or `module:Class.method`) that returns an nn.Module.

`--arg` are its arguments, `--weights` a .safetensors file or a state dict that torch.load reads with
weights_only=True. It is the only code that is run; nothing is unpickled.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, Source

if TYPE_CHECKING:
    from torch import Tensor, nn

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")


def _claims(path: str) -> bool:
    return bool(_FACTORY.fullmatch(path)) or path.lower().endswith(_PICKLES)


def load(ref: ModelRef) -> Model:
    """The Model that the factory makes, with the weights of `ref.weights`; parameters are the module's own.

    `ref.shapes` must hold the shape of every input. Raises ConvkitError for a factory that cannot be found or called,
    weights that do not fit or are not finite, and a network that cannot be traced or translated.
    """
    if not _FACTORY.fullmatch(ref.path):
        raise ConvkitError(
            f"{ref.path} is a pickle, which runs code when it is loaded",
            hint="give package.module:function that builds the network, with --weights",
        )
    module = build(ref)
    return from_module(module, ref)


def build(ref: ModelRef) -> nn.Module:
    """The module the factory makes, in evaluation mode, with its weights."""
    from convkit.compress.sources import _weights

    module = _call(_find(ref.path), ref)
    if ref.weights:
        _weights.install(module, ref.weights)
    return module.eval()


def from_module(module: nn.Module, ref: ModelRef) -> Model:
    """The Model of a module; `ref` names it and gives the inputs' shapes."""
    from convkit.compress.sources import _aten_program, _aten_trace, _weights

    _weights.check_finite(dict(module.named_parameters()), dict(module.named_buffers()))
    program, inputs, sizes = _aten_trace.export(module, ref.shapes, ref.path)
    return _aten_program.to_model(program, inputs, sizes, ref.path.rpartition(":")[2], _digest(module, ref))


def _digest(module: nn.Module, ref: ModelRef) -> str:
    """What the Model was made from: factory, arguments, shapes, and every tensor."""
    import torch

    from convkit.compress import record

    def plain(tensor: Tensor) -> Any:  # noqa: ANN401 - numpy is named where it is used
        tensor = tensor.detach().cpu().contiguous()
        return (tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor).numpy()

    tensors = {name: plain(tensor) for name, tensor in module.state_dict().items()}
    told = {"factory": ref.path, "args": {key: repr(ref.args[key]) for key in sorted(ref.args)}, "shapes": ref.shapes}
    return record.digest_json([told, record.digest_arrays(tensors)])


def _find(path: str) -> Callable[..., object]:
    name, _, attributes = path.partition(":")
    found: Any = _import(name, path)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            near = [key for key in vars(found) if not key.startswith("_") and callable(getattr(found, key))]
            hint = f"there is: {', '.join(sorted(near)[:8])}" if near else "check the name"
            raise ConvkitError(f"{path}: {name} has no {attribute!r}", hint=hint)
        found = getattr(found, attribute)
    if not callable(found):
        raise ConvkitError(f"{path} is a {type(found).__name__}, not a function", hint="give one that builds the model")
    return found  # type: ignore[no-any-return]


def _import(name: str, path: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = "install its package, or run convkit where the module can be imported (PYTHONPATH)"
            raise ConvkitError(f"{path}: there is no module {error.name!r}", hint=hint) from error
        raise ConvkitError(f"{path}: importing {name} needs {error.name!r}", hint="install it") from error
    except Exception as error:
        raise ConvkitError(f"{path}: importing {name} raised {_first_line(error)}", hint="fix the module") from error


def _call(factory: Callable[..., object], ref: ModelRef) -> nn.Module:
    import contextlib
    import sys

    from torch import nn

    try:
        with contextlib.redirect_stdout(sys.stderr):
            made = factory(**ref.args)
    except Exception as error:
        raise ConvkitError(f"{ref.path} raised {_first_line(error)}{_line(error)}", hint="check --arg") from error
    if not isinstance(made, nn.Module):
        raise ConvkitError(f"{ref.path} returned a {type(made).__name__}, not an nn.Module", hint="return the network")
    return made


def _line(error: BaseException) -> str:
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


PART = Source(claims=_claims, load=load)
