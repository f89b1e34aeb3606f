"""Augmentation: what flip and shift make of images, and what is not moved along with them."""

import pytest
import torch

from convkit.compress.errors import ConvkitError
from convkit.compress.training import augment


def images(count: int = 64) -> torch.Tensor:
    """Each pixel of each image is a number of its own, and none is zero."""
    return torch.arange(1.0, count * 2 * 16 * 24 + 1).reshape(count, 2, 16, 24)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flip_mirrors_about_half_of_the_images_along_their_width() -> None:
    x = images()
    made = augment.flip(x, chance())
    as_they_are = [torch.equal(one, other) for one, other in zip(made, x, strict=True)]
    mirrored = [torch.equal(one, other.flip(-1)) for one, other in zip(made, x, strict=True)]
    assert all(one != other for one, other in zip(as_they_are, mirrored, strict=True))
    assert 16 < sum(mirrored) < 48
    assert torch.equal(made, augment.flip(x, chance()))
    assert not torch.equal(made, augment.flip(x, chance(1)))


def test_shift_moves_each_image_by_up_to_an_eighth_and_lets_zeros_in() -> None:
    x = images()
    made, moves = augment.shift(x, chance()), set()
    assert made.shape == x.shape
    for one, whole in zip(made, x, strict=True):
        rows, columns = (int(one[0].count_nonzero(at).amax()) for at in (0, 1))
        assert one.count_nonzero() == 2 * rows * columns
        top, left = (int(places.max()) + 1 for places in (one[0].nonzero()[:, 0], one[0].nonzero()[:, 1]))
        own = one[:, top - rows : top, left - columns : left]
        first = (whole == own[0, 0, 0]).nonzero()[0]
        down, right = int(first[1]), int(first[2])
        assert torch.equal(own, whole[:, down : down + rows, right : right + columns])
        moves.add((top - rows - down, left - columns - right))
    assert {down for down, _ in moves} == {-2, -1, 0, 1, 2}
    assert {right for _, right in moves} == {-3, -2, -1, 0, 1, 2, 3}


def test_small_images_are_shifted_by_one_pixel() -> None:
    x = torch.tensor([[5.0, 6.0], [7.0, 8.0]]).expand(200, 1, 2, 2)
    made = augment.shift(x, chance())
    seen = {tuple(one.flatten().tolist()) for one in made}
    assert (5, 6, 7, 8) in seen
    assert (0, 0, 0, 5) in seen
    assert (8, 0, 0, 0) in seen
    assert len(seen) == 9


def test_both_are_chained_in_the_order_that_is_given() -> None:
    x, both = images(8), augment.chained(augment.parse("flip, shift"))
    own = chance()
    flipped = augment.flip(x, own)
    assert torch.equal(both(x, chance()), augment.shift(flipped, own))


@pytest.mark.parametrize(
    ("axes", "labels", "said"),
    [
        ([3], 1, "for images [N, C, H, W]"),
        ([4, 4], 1, "moves images, and not the other inputs"),
        ([4, 2], 1, "moves images, and not the other inputs"),
        ([4], 4, "moves images, and not labels that are images themselves"),
        ([4], 2, "moves images, and not labels"),
    ],
)
def test_what_would_stay_where_images_are_moved_from_is_told(axes: list[int], labels: int, said: str) -> None:
    with pytest.raises(ConvkitError) as caught:
        augment.check(("flip",), axes, labels)
    assert said in str(caught.value)
    augment.check((), axes, labels)


def test_images_with_a_label_each_are_taken() -> None:
    augment.check(("flip", "shift"), [4])
