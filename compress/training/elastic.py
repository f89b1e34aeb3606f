"""An elastic network: one set of weights for many networks, narrower, shallower and with smaller kernels than it.

Made of the user's own network: families of channels that go together get narrower, the worthiest channels first kept;
residual blocks are left out from the last of a stage on; kernels are the middle of larger ones behind a matrix of their
own (Cai et al., Once-for-all, ICLR 2020). A member is the network cut to its shapes, and for each of its parameters the
places in the whole one's that it is made of, so that gradients of all members meet in one set of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from convkit.compress import graph as graphs
from convkit.compress.model import clone
from convkit.compress.shrinking import cutting, residual, shrink
from convkit.compress.shrinking.coupling import Coupling, coupling, of_clone
from convkit.compress.training.choice import Choice, Conv, Space

_HELD = 64
"""Members whose shapes are kept."""


class Elastic(nn.Module):
    """`graph` in the place of all members of `space`; `rank`: what each class of channels is worth."""

    def __init__(self, graph: fx.GraphModule, members: Space) -> None:
        super().__init__()
        self.graph, self.space = graph, members
        self._rank: Mapping[int, float] = {}
        self._members: dict[tuple[object, ...], Member] = {}
        self._coupled: list[Coupling] = []
        self.matrices = nn.ParameterDict(
            {
                f"{name.replace('.', '/')}:{small}": torch.eye(small ** len(graph.get_submodule(name).kernel_size))  # type: ignore[arg-type]
                for name, sizes in members.kernels.items()
                for small in sizes[1:]
            }
        )

    def reorder(self, worth: Mapping[int, float]) -> None:
        """From now on narrower members keep the channels that are worth most."""
        self._rank = dict(worth)
        self._members.clear()

    def member(self, choice: Choice) -> Member:
        """The member of `choice`; its norms have statistics of their own."""
        found = self._members.pop(choice.key, None) or self._made(choice)
        self._members[choice.key] = found
        if len(self._members) > _HELD:
            self._members.pop(next(iter(self._members)))
        return found

    def _made(self, choice: Choice) -> Member:
        own = clone(self.graph)
        with torch.no_grad():
            made: dict[int, nn.Parameter] = {}
            for name, parameter in list(own.named_parameters(remove_duplicate=False)):
                path, _, last = name.rpartition(".")
                if id(parameter) not in made:
                    places = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
                    made[id(parameter)] = nn.Parameter(places, requires_grad=False)
                setattr(own.get_submodule(path), last, made[id(parameter)])
        coupled = self._coupled_as(own)
        residual.leave_out(own, choice.out)
        cutting.cut(own, coupled, shrink.gone(coupled, self._worth(coupled), choice.widths))
        for name, size in choice.kernels.items():
            if name in dict(own.named_modules()):
                _smaller(own.get_submodule(name), size)
        return Member(self, own, choice)

    def _coupled_as(self, own: fx.GraphModule) -> Coupling:
        """The coupling of a clone, which has its nodes in the same order."""
        if not self._coupled:
            self._coupled.append(coupling(self.graph))
        (known,) = self._coupled
        return of_clone(known, self.graph, own)

    def _worth(self, coupled: Coupling) -> Mapping[int, float]:
        """Without a rank the first channels are kept."""
        return self._rank or {root: -float(root) for family in coupled.families for root in family.classes}


def _smaller(layer: nn.Module, size: int) -> None:
    """Kernel and padding of this size; the parameter still tells the places of the whole kernel."""
    assert isinstance(layer, Conv)  # noqa: S101 - the space names convolutions
    layer.padding = tuple(d * (size - 1) // 2 for d in layer.dilation)
    layer.kernel_size = tuple(size for _ in layer.kernel_size)


class Member:
    """One network of an elastic one: `shape` has the structure, and statistics of norms, but no weights of its own."""

    def __init__(self, elastic: Elastic, shape: fx.GraphModule, choice: Choice) -> None:
        self.choice, self.shape = choice, shape
        self._elastic = elastic
        whole = dict(elastic.graph.named_parameters(remove_duplicate=False))
        self._places: dict[str, Tensor | None] = {}
        for name, parameter in list(shape.named_parameters(remove_duplicate=False)):
            is_whole = parameter.shape == whole[name].shape
            self._places[name] = None if is_whole else parameter.detach().long()
            path, _, last = name.rpartition(".")
            setattr(shape.get_submodule(path), last, nn.Parameter(torch.empty(0), requires_grad=False))

    def weights(self) -> dict[str, Tensor]:
        """Parameters by name, made of the elastic network's: gradients reach those."""
        whole = dict(self._elastic.graph.named_parameters(remove_duplicate=False))
        found = {name: self._picked(whole[name], places) for name, places in self._places.items()}
        for name, size in self.choice.kernels.items():
            key = f"{name}.weight"
            if key in found:
                found[key] = self._cropped(name, found[key], size)
        return found

    @staticmethod
    def _picked(whole: Tensor, places: Tensor | None) -> Tensor:
        if places is None:
            return whole
        return whole.flatten()[places.flatten()].reshape(places.shape)

    def _cropped(self, name: str, weight: Tensor, size: int) -> Tensor:
        """The middle of each kernel, behind the matrix of every size on the way."""
        axes = weight.ndim - 2
        for small in range(weight.shape[-1] - 2, size - 1, -2):
            middle = weight
            for axis in range(2, 2 + axes):
                middle = middle.narrow(axis, 1, middle.shape[axis] - 2)
            matrix = self._elastic.matrices[f"{name.replace('.', '/')}:{small}"]
            weight = (middle.flatten(2) @ matrix).reshape(middle.shape)
        return weight

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = functional_call(self.shape, self.weights(), inputs, tie_weights=False)
        return result

    def network(self) -> fx.GraphModule:
        """It as a network of its own, with its weights and the statistics of its norms as they are now."""
        own = clone(self.shape)
        with torch.no_grad():
            for name, tensor in self.weights().items():
                path, _, last = name.rpartition(".")
                setattr(own.get_submodule(path), last, nn.Parameter(tensor.detach().clone()))
        own.recompile()
        return own

    def recalibrate(self, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Take the statistics of its norms anew, over these inputs."""
        if not batches:
            return
        norms = [one for one in self.shape.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.shape.train()
        with torch.no_grad():
            for inputs in batches if norms else ():
                self(*inputs)
        self.shape.eval()
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def products(member: Member) -> int:
    """Multiply-accumulates of one sample."""
    return int(sum(work(member).values()))


def work(member: Member) -> dict[str, float]:
    """Products of every layer that has some, by name, of one sample."""
    found: dict[str, float] = {}
    for node in graphs.computes(member.shape):
        if node.op == "call_module" and (count := _products(node, member.shape)):
            found[graphs.key(node)] = float(count)
    return found


def _products(node: fx.Node, graph: fx.GraphModule) -> int:
    """By the positions that the layer had in the whole network: these stay when channels go."""
    layer, made = graph.get_submodule(str(node.target)), graphs.shape(node)
    if made is None or not isinstance(layer, Conv | nn.Linear):
        return 0
    if isinstance(layer, nn.Linear):
        rows = torch.Size(made[1:-1]).numel()
        return rows * layer.in_features * layer.out_features
    each = layer.in_channels // layer.groups * torch.Size(layer.kernel_size).numel()
    source = node.args[0]
    spread = isinstance(layer, nn.modules.conv._ConvTransposeNd) and isinstance(source, fx.Node)  # noqa: SLF001
    places = graphs.shape(source) if spread else made  # type: ignore[arg-type]  # a node
    return layer.out_channels * each * torch.Size((places or made)[2:]).numel()
