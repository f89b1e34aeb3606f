"""The process in which a peer makes a trained network smaller, in an environment of its own: torch, no convkit.

python -m tests.bench.compressing PEER NETWORK WEIGHTS.safetensors DATA.npz SHARE OUTPUT.onnx

PEER: torch_pruning, tucker or aimet_svd. All are followed by new statistics of the norms, on the images of DATA;
nothing is trained. SHARE: of the channels, of the parameters, or of the products that is to be left.
"""

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

from tests.bench.cifar_networks import NETWORKS

_BATCH, _JUDGED, _CANDIDATES = 64, 128, 5
"""Of images at once; that AIMET scores on; and ranks of a layer that it tries."""


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


def aimet_svd(network: nn.Module, share: float, images: Tensor) -> nn.Module:
    """Spatial SVD, its ranks chosen greedily by how many images keep their class."""
    sys.modules["torchvision"] = MagicMock()  # its names are looked up, nothing of it is called
    from aimet_torch.common.defs import CompressionScheme, CostMetric, GreedySelectionParameters
    from aimet_torch.compress import ModelCompressor
    from aimet_torch.defs import SpatialSvdParameters

    with torch.no_grad():
        classes = network(images[:_JUDGED]).argmax(1)

    def kept(made: nn.Module, _iterations: int | None, use_cuda: bool) -> float:
        with torch.no_grad():
            return float((made(images[:_JUDGED]).argmax(1) == classes).double().mean())

    greedy = GreedySelectionParameters(target_comp_ratio=share, num_comp_ratio_candidates=_CANDIDATES)
    mode = SpatialSvdParameters.AutoModeParams(greedy, modules_to_ignore=[])
    asked = SpatialSvdParameters(SpatialSvdParameters.Mode.auto, mode, multiplicity=8)
    scheme, shape = CompressionScheme.spatial_svd, tuple(images[:1].shape)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):  # where it leaves its scores
        made, _ = ModelCompressor.compress_model(network, kept, None, shape, scheme, CostMetric.mac, asked)
    return made


PEERS: Mapping[str, Callable[[nn.Module, float, Tensor], nn.Module]] = {
    "torch_pruning": torch_pruning,
    "tucker": tucker,
    "aimet_svd": aimet_svd,
}


def main(peer: str, name: str, weights: str, data: str, share: str, output: str) -> None:
    torch.manual_seed(0)
    network = _loaded(name, weights)
    (feed,) = (arrays := np.load(data)).files
    images = torch.from_numpy(arrays[feed])
    made = PEERS[peer](network.eval(), float(share), images)
    _recalibrated(made, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            made.eval(), (images[:2],), input_names=[feed], output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("N")},), opset_version=18, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(Path(output), external_data=False)


def _loaded(name: str, weights: str) -> nn.Module:
    if name not in NETWORKS:
        from efficientnet_lite_pytorch import EfficientNet

        lite: nn.Module = EfficientNet.from_name(f"efficientnet-{name}")
        lite.load_state_dict(torch.load(weights, weights_only=True))
        return lite
    from safetensors.torch import load_file

    network = NETWORKS[name]()
    network.load_state_dict(load_file(weights))
    return network


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
