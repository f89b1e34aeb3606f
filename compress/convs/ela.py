"""ELA: efficient local attention, gates along height and along width from strips of the image.

Xu and Wan, ELA: Efficient Local Attention for Deep Convolutional Neural Networks, 2024, equations 3 to 7.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example


class ELA(Adopting):
    """x [N, C, H, W] scaled by a gate for each row and one for each column: sigmoid(norm(conv(mean of the strip))), of
    one convolution and one GroupNorm for both. Published weights differ in groups: give those of the checkpoint.
    The paper's authors released no code; the names of both common re-implementations load.
    """

    def __init__(
        self, channels: int, kernel_size: int = 7, *, groups: int | None = None, norm_groups: int = 16
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel of ELA along strips is odd, not {kernel_size}")
        if channels % norm_groups:
            raise ValueError(f"{channels} channels do not part into {norm_groups} groups of ELA's norm")
        self.conv = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=groups or channels, bias=False
        )
        self.gn = nn.GroupNorm(norm_groups, channels)
        self.sigmoid = nn.Sigmoid()

    def own(self, state: State) -> State:
        return renamed(state, {r"con1\.": "conv.", r"GN\.": "gn."})

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:  # noqa: PLR2004 - NCHW
            raise ValueError(f"ELA takes [N, C, H, W], not {list(x.shape)}")
        rows, columns = (self.sigmoid(self.gn(self.conv(x.mean(axis)))) for axis in (3, 2))
        gated: Tensor = x * rows.unsqueeze(3) * columns.unsqueeze(2)
        return gated


def _examples() -> Iterator[Example]:
    """Its four variants: kernels of 5 and 7, depthwise and in groups of eight."""
    for size, groups, norms in ((5, None, 32), (7, None, 16), (5, 4, 16), (7, 4, 16)):
        layer = ELA(32, size, groups=groups, norm_groups=norms)
        nn.init.uniform_(layer.gn.weight, 0.5, 1.5)
        nn.init.normal_(layer.gn.bias)
        yield Example(layer, {"x": (32, 9, 12)})


PART = Conv(
    paper="ELA: Efficient Local Attention for Deep Convolutional Neural Networks (2024)",
    tier="T1",
    layers=(ELA,),
    examples=_examples,
    usual=lambda: Example(ELA(64), {"x": (64, 56, 56)}),
    kept={"Sigmoid": "gates multiply whole rows and columns: their error is the image's"},
)
