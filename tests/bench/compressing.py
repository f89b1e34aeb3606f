"""The process in which a peer makes a trained network smaller, in an environment of its own: torch, no convkit.

python -m tests.bench.compressing PEER NETWORK WEIGHTS.safetensors DATA.npz SHARE OUTPUT.onnx

PEER: torch_pruning or tucker. Both are followed by new statistics of the norms, on the images of DATA; nothing is
trained. SHARE: of the channels, or of the parameters, that is to be left.
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.bench.cifar_networks import NETWORKS

_BATCH = 64


def torch_pruning(network: nn.Module, share: float, images: Tensor) -> nn.Module:
    """Channels by the magnitude of their groups, over the whole network at once; widths are multiples of 8."""
    import torch_pruning as pruning

    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    pruner = pruning.pruner.MetaPruner(
        network, images[:1], importance=pruning.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
        pruning_ratio=1 - share, ignored_layers=last, round_to=8,
    )  # fmt: skip
    pruner.step()
    return network


def tucker(network: nn.Module, share: float, _images: Tensor) -> nn.Module:
    """Every 3x3 convolution but the first as Tucker's three, at one share of its parameters."""
    from tltorch import FactorizedConv

    convolutions = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    for name in convolutions[1:]:
        layer = network.get_submodule(name)
        if layer.kernel_size != (1, 1):
            made = FactorizedConv.from_conv(layer, rank=share, factorization="tucker", implementation="factorized")
            network.set_submodule(name, made)
    return network


PEERS: Mapping[str, Callable[[nn.Module, float, Tensor], nn.Module]] = {
    "torch_pruning": torch_pruning,
    "tucker": tucker,
}


def main(peer: str, name: str, weights: str, data: str, share: str, output: str) -> None:
    from safetensors.torch import load_file

    torch.manual_seed(0)
    network = NETWORKS[name]()
    network.load_state_dict(load_file(weights))
    images = torch.from_numpy(np.load(data)["input"])
    made = PEERS[peer](network.eval(), float(share), images)
    _recalibrated(made, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            made.eval(), (images[:2],), input_names=["input"], output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("N")},), opset_version=18, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(Path(output), external_data=False)


def _recalibrated(network: nn.Module, images: Tensor) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    network.train()
    with torch.no_grad():
        for batch in images.split(_BATCH):
            network(batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
