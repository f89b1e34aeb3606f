"""The user's own PyTorch code: `package.module:function` (or `module:Class.method`) that returns an nn.Module.

`--arg` are its arguments, `--weights` a .safetensors file or a state dict that torch.load reads with
weights_only=True. It is the only code that is run; nothing is unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convkit.compress import function
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, Source

if TYPE_CHECKING:
    from torch import Tensor, nn

_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")


def _claims(path: str) -> bool:
    return function.names_one(path) or path.lower().endswith(_PICKLES)


def load(ref: ModelRef) -> Model:
    """The Model that the factory makes, with the weights of `ref.weights`; parameters are the module's own.

    `ref.shapes` must hold the shape of every input. Raises ConvkitError for a factory that cannot be found or called,
    weights that do not fit or are not finite, and a network that cannot be traced or translated.
    """
    if not function.names_one(ref.path):
        raise ConvkitError(
            f"{ref.path} is a pickle, which runs code when it is loaded",
            hint="give package.module:function that builds the network, with --weights",
        )
    module = build(ref)
    return from_module(module, ref)


def build(ref: ModelRef) -> nn.Module:
    """The module the factory makes, in evaluation mode, with its weights."""
    from torch import nn

    from convkit.compress.sources import _weights

    module = function.call(ref.path, **ref.args)
    if not isinstance(module, nn.Module):
        raise ConvkitError(
            f"{ref.path} returned a {type(module).__name__}, not an nn.Module", hint="return the network"
        )
    if ref.weights:
        _weights.install(module, ref.weights)
    return module.eval()


def from_module(module: nn.Module, ref: ModelRef) -> Model:
    """The Model of a module; `ref` names it and gives the inputs' shapes."""
    from convkit.compress import membership
    from convkit.compress.sources import _aten_program, _aten_trace, _weights

    _weights.check_finite(dict(module.named_parameters()), dict(module.named_buffers()))
    program, inputs, sizes = _aten_trace.export(module, ref.shapes, ref.path)
    name, digest = ref.path.rpartition(":")[2], _digest(module, ref)
    return _aten_program.to_model(program, inputs, sizes, name, digest, membership.owners(module))


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


PART = Source(claims=_claims, load=load)
