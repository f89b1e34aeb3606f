"""Every form: exact at full rank, what its parameters are, merged back, refitted to what is read."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from convkit.compress import form as forms
from convkit.compress import parts
from convkit.compress.form import Conv, Form

NAMES = parts.names(forms.FOLDER)
CONVS: dict[str, tuple[Conv, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(6, 10, 3, padding=1), (9, 12)),
    "strided": (nn.Conv2d(8, 6, (3, 5), stride=(2, 1), padding=(0, 2), bias=False), (11, 13)),
    "dilated": (nn.Conv2d(4, 8, (5, 3), padding=(4, 2), dilation=(2, 2), groups=2), (12, 9)),
    "depthwise": (nn.Conv2d(6, 6, 7, padding=3, groups=6), (10, 11)),
    "pointwise": (nn.Conv2d(12, 8, 1), (5, 7)),
    "series": (nn.Conv1d(6, 9, 5, stride=2, padding=2), (21,)),
    "volume": (nn.Conv3d(4, 5, (3, 2, 3), padding=(1, 0, 2), stride=(1, 2, 1)), (6, 7, 8)),
}


class Scaled(nn.Conv2d):
    """A convolution of a user's, made otherwise and of another weight than it holds."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.scale * self.weight, self.bias)


def shown() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        part: Form = parts.load(forms.FOLDER, name)
        yield from ((name, kind) for kind, (conv, _) in CONVS.items() if part.fits(conv))


CASES = list(shown())


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Form, Conv, Tensor]:
    name, kind = request.param
    torch.manual_seed(0)
    conv, size = CONVS[kind]
    conv = conv.double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return parts.load(forms.FOLDER, name), conv, torch.randn(3, conv.in_channels, *size).double()


def test_every_form_fits_something() -> None:
    assert {name for name, _ in CASES} == {*NAMES}
    assert {kind for _, kind in CASES} == {*CONVS}


def test_at_full_rank_it_is_the_convolution(case: tuple[Form, Conv, Tensor]) -> None:
    form, conv, x = case
    chain = form.factor(conv, forms.grouped(conv), form.full(conv))
    with torch.no_grad():
        wanted, made = conv(x), nn.Sequential(*forms.layers(chain, conv))(x)
    assert (made - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    assert (forms.merged(chain) - conv.weight).abs().max() <= 1e-9


def test_at_any_rank_it_is_what_it_is_merged_to(case: tuple[Form, Conv, Tensor]) -> None:
    form, conv, x = case
    ranks = tuple(max(1, rank // 2) for rank in form.full(conv))
    chain = form.factor(conv, forms.grouped(conv), ranks)
    assert forms.held(chain) == form.parameters(conv, ranks)
    one = copy.deepcopy(conv)
    with torch.no_grad():
        one.weight.copy_(forms.merged(chain))
        wanted, made = one(x), nn.Sequential(*forms.layers(chain, conv))(x)
    assert (made - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def test_more_ranks_lose_less_and_keep_to_their_share(case: tuple[Form, Conv, Tensor]) -> None:
    form, conv, _ = case
    lost = []
    for share in (0.3, 0.6, 0.9):
        ranks = forms.ranks(form, conv, share)
        if ranks is None:
            continue
        assert form.parameters(conv, ranks) <= share * conv.weight.numel()
        chain = form.factor(conv, forms.grouped(conv), ranks)
        lost.append(float((forms.merged(chain) - conv.weight.detach()).square().sum()))
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < conv.weight.square().sum() if lost else True


def test_refitted_to_what_is_read_it_loses_less(case: tuple[Form, Conv, Tensor]) -> None:
    form, conv, _ = case
    ranks = tuple(max(1, rank // 3) for rank in form.full(conv))
    weight = forms.grouped(conv).flatten(2)
    k = weight.shape[2]
    reads = torch.randn(conv.groups, 4 * k, k).double() * torch.logspace(0, -2, k).double()
    moment = reads.mT @ reads
    chain = form.factor(conv, forms.grouped(conv), ranks)

    def lost(pieces: list[forms.Piece]) -> float:
        off = forms.merged(pieces).reshape(weight.shape) - weight
        return float(((off @ moment) * off).sum())

    fitted = forms.refitted(chain, weight, moment)
    assert lost(fitted) <= lost(chain)
    if form.parameters(conv, ranks) < conv.weight.numel():
        assert lost(fitted) < 0.9 * lost(chain)


def test_the_refit_finds_the_best_there_is() -> None:
    """Of a single product the optimum is known: the weight's own directions once its inputs are white."""
    torch.manual_seed(1)
    conv = nn.Conv2d(12, 8, 1, bias=False).double()
    form: Form = parts.load(forms.FOLDER, "channel_svd")
    reads = torch.randn(200, 12).double() * torch.logspace(0, -1, 12).double()
    moment = (reads.T @ reads)[None]
    weight = forms.grouped(conv).flatten(2)
    root = torch.linalg.cholesky(moment)
    best = torch.linalg.svdvals(weight @ root)[0, 3:].square().sum()
    fitted = forms.refitted(form.factor(conv, forms.grouped(conv), (3,)), weight, moment, 200)
    off = forms.merged(fitted).reshape(weight.shape) - weight
    assert float(((off @ moment) * off).sum()) <= 1.001 * float(best)


def test_ranks_are_multiples_that_a_target_likes() -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    for name in NAMES:
        form: Form = parts.load(forms.FOLDER, name)
        found = forms.ranks(form, conv, 0.4, step=8)
        assert found is not None
        assert all(rank % 8 == 0 for rank in found if rank >= 8)


def test_what_is_no_plain_convolution_has_no_form() -> None:
    assert not forms.is_plain(nn.ConvTranspose2d(3, 3, 3))
    assert not forms.is_plain(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    assert not forms.is_plain(nn.Conv2d(3, 3, 3, padding="same"))
    assert not forms.is_plain(nn.Linear(3, 3))
    assert not forms.is_plain(Scaled(3, 0.5))
    assert math.prod(CONVS["plain"][0].kernel_size) == 9
