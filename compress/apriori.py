"""A network in forms before it is trained: fewer parameters from the start, and merged back to what it was.

A priori compression of convolutional neural networks for wave simulators, 2023: filters of one way in place of kernels.
The chain of a form takes the convolution's place in the module itself, so that the user's own code trains it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.compress import form as forms
from convkit.compress import membership, parts
from convkit.compress.errors import ConvkitError
from convkit.compress.form import Chosen, Conv, Form, Ranks

_GAIN = 2.0
"""Of a ReLU behind a layer (He et al., Delving Deep into Rectifiers, ICCV 2015): half of what it makes is lost."""


def convolutions(module: nn.Module) -> dict[str, Conv]:
    """Those of `module` that forms may stand for, by name; what is shared under several names is under the first.

    What a novel convolution is made of is left to it: it may read the weight itself.
    """
    inside = tuple(f"{name}." if name else "" for name in membership.owners(module))
    own = ((name, layer) for name, layer in module.named_modules() if not name.startswith(inside))
    return {name: layer for name, layer in own if isinstance(layer, Conv) and forms.is_plain(layer)}


def padded(module: nn.Module) -> nn.Module:
    """`module` with paddings that are called "same" or "valid" as the numbers that they come to, in place; one that is
    not as wide on both sides stays.
    """
    for layer in module.modules():
        if isinstance(layer, Conv) and isinstance(layer.padding, str):
            both = [(size - 1) * apart for size, apart in zip(layer.kernel_size, layer.dilation, strict=True)]
            if layer.padding == "valid":
                layer.padding = (0,) * len(both)
            elif not any(width % 2 for width in both):
                layer.padding = tuple(width // 2 for width in both)
    return module


def parsed(given: Mapping[str, str]) -> dict[str, Chosen]:
    """Forms of layers as they are written down."""
    return {name: Chosen.parse(text) for name, text in given.items()}


def loaded(module: nn.Module, weights: str | None) -> nn.Module:
    """`module` with the weights in the file, where one is given."""
    from convkit.compress.sources import _weights

    if weights is not None:
        _weights.install(module, weights)
    return module


def chosen(module: nn.Module, name: str, share: float) -> dict[str, Chosen]:
    """Ranks with which the network has at most `share` of its parameters, every layer about the same part of its own.

    Layers that would not shrink stay as they are. Raises ConvkitError where even the least ranks take more.
    """
    form: Form = parts.load(forms.FOLDER, name)
    known = {key: layer for key, layer in convolutions(module).items() if form.fits(layer)}
    if not any(_shrinks(form, layer, even(form, layer, 0.0)) for layer in known.values()):
        hint = f"there is: {', '.join(parts.names(forms.FOLDER))}"
        raise ConvkitError(f"no convolution of the network is smaller in the form {name}", hint=hint)
    whole = sum(parameter.numel() for parameter in module.parameters())
    rest = whole - sum(weight.numel() for weight in {id(one.weight): one.weight for one in known.values()}.values())
    low, high, best = 0.0, 1.0, None
    for _ in range(40):
        middle = (low + high) / 2
        found = {key: even(form, layer, middle) for key, layer in known.items()}
        if rest + sum(_held(form, known[key], ranks) for key, ranks in found.items()) <= share * whole:
            best, low = found, middle
        else:
            high = middle
    if best is None:
        least = rest + sum(_held(form, layer, even(form, layer, 0.0)) for layer in known.values())
        raise ConvkitError(
            f"in the form {name} the network has {least / whole:.1%} of its parameters at least",
            hint=f"ask for that, or another form: {', '.join(parts.names(forms.FOLDER))}",
        )
    return {key: Chosen(name, ranks) for key, ranks in best.items() if _shrinks(form, known[key], ranks)}


def even(form: Form, conv: Conv, share: float) -> Ranks:
    """The largest ranks in proportion to the full ones with at most `share` of the weights; the least where there are
    none: no layer that is still to be trained has directions of its own.
    """
    full, most = form.full(conv), share * conv.weight.numel()
    low, high, best = 1, max(full), tuple(1 for _ in full)
    while low <= high:
        middle = (low + high) // 2
        tried = tuple(max(1, rank * middle // max(full)) for rank in full)
        if form.learnt(conv, tried) <= most:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def rewrite(module: nn.Module, given: Mapping[str, Chosen], seed: int = 0) -> nn.Module:
    """`module` with the convolutions that are named in their forms, drawn anew so that numbers keep their variance.

    Raises ConvkitError for a name that is no convolution, or one that has no such form.
    """
    generator = torch.Generator().manual_seed(seed)
    padded(module)
    for name, one in given.items():
        layer = one.fitted(name, dict(module.named_modules()))
        if one.part.trained is not None:
            _parametrize(layer, one.part.trained.parametrization(layer, one.ranks), generator)
            continue
        drawn = torch.randn(forms.grouped(layer).shape, generator=generator, dtype=torch.float64)
        chain = forms.layers(one.part.factor(layer, drawn, one.ranks), layer)
        with torch.no_grad():
            for place, piece in enumerate(chain):
                _draw(piece.weight, _GAIN if place == 0 else 1.0, generator)
        _put(module, layer, nn.Sequential(*chain))
    return module


def _put(module: nn.Module, layer: nn.Module, other: nn.Module) -> None:
    """`other` in place of `layer`, under each of its names."""
    for name in [name for name, one in module.named_modules(remove_duplicate=False) if one is layer]:
        module.set_submodule(name, other)


def dense(module: nn.Module, given: Mapping[str, Chosen]) -> nn.Module:
    """The reverse of `rewrite`, with the weights that it has by now: every chain as one convolution, exactly."""
    for name in given:
        chain = module.get_submodule(name)
        if parametrize.is_parametrized(chain, "weight"):
            parametrize.remove_parametrizations(chain, "weight")
            continue
        assert isinstance(chain, nn.Sequential)  # noqa: S101 - rewrite made it
        _put(module, chain, merged([layer for layer in chain if isinstance(layer, Conv)]))
    return module


def merged(chain: list[Conv]) -> Conv:
    """One convolution that computes what the chain does."""
    first, last = chain[0], chain[-1]
    weight = forms.merged([_piece(layer) for layer in chain])
    groups = first.in_channels // weight.shape[1]

    def each(name: str, neutral: int) -> tuple[int, ...]:
        along = zip(*(getattr(layer, name) for layer in chain), strict=True)
        return tuple(next((value for value in axis if value != neutral), neutral) for axis in along)

    made: Conv = type(first)(  # type: ignore[call-arg]  # of any rank
        first.in_channels, last.out_channels, tuple(weight.shape[2:]), each("stride", 1), each("padding", 0),
        each("dilation", 1), groups, last.bias is not None, dtype=last.weight.dtype,  # type: ignore[arg-type]
    )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(weight)
        if made.bias is not None and last.bias is not None:
            made.bias.copy_(last.bias)
    return made.train(first.training)


def _piece(layer: Conv) -> forms.Piece:
    padding = tuple(int(pad) for pad in layer.padding)
    geometry = tuple(layer.stride), padding, tuple(layer.dilation)
    return forms.Piece(layer.weight.detach().double(), layer.groups, *geometry)


def _held(form: Form, conv: Conv, ranks: Ranks) -> int:
    return min(form.learnt(conv, ranks), conv.weight.numel())


def _shrinks(form: Form, conv: Conv, ranks: Ranks) -> bool:
    return form.learnt(conv, ranks) < conv.weight.numel()


def _parametrize(layer: Conv, made: nn.Module, generator: torch.Generator) -> None:
    """Several terms of a sum, each a product: the factor of a filter's size has its variance, the others share one."""
    parametrize.register_parametrization(layer, "weight", made)
    *factors, filters = layer.parametrizations.weight.parameters()  # type: ignore[union-attr]  # it has just got it
    with torch.no_grad():
        filters.normal_(0, math.sqrt(_GAIN / layer.weight[0].numel()), generator=generator)
        for factor in factors:
            factor.normal_(0, 1 / math.sqrt(filters.shape[1]), generator=generator)


def _draw(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    weight.normal_(0, math.sqrt(gain / weight[0].numel()), generator=generator)
