"""Networks whose every tensor matters: seeded weights, and batch-norm statistics that are not 0 and 1."""

import torch
from torch import nn

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` in evaluation mode with weights that keep activations in range, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if tensor.is_floating_point():
                tensor.data.copy_(_values(layer, name, tensor, generator))
    return module.eval()


def _values(layer: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator)
    if name == "running_var":
        return noise.abs() + 0.5
    if isinstance(layer, _NORMS):
        return 0.2 * noise + (name == "weight")
    if tensor.ndim > 1:
        gain = 2.0 / (tensor[0].numel() if not isinstance(layer, nn.modules.conv._ConvTransposeNd) else tensor.shape[0])
        return noise * gain**0.5
    return 0.1 * noise
