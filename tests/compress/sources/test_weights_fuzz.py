"""Weight files with damaged bytes: weights that fit, or one line that says what is wrong."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from convkit.compress.errors import ConvkitError
from convkit.compress.sources import _weights

_CASES = 150
"""Files a seed."""


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def _safetensors() -> bytes:
    return save(_network().state_dict())


def _state_dict() -> bytes:
    written = io.BytesIO()
    torch.save(_network().state_dict(), written)
    return written.getvalue()


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut out or put in; half of the changes hit the header, where the structure is."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(len(changed), 400) if chance.random() < 0.5 else len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.choice(b'0123456789{}[]",:\x00\xff')
            case 2:
                del changed[place : place + chance.randint(1, 8)]
            case _:
                changed[place:place] = chance.randbytes(chance.randint(1, 8))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("ending", "write"), [(".safetensors", _safetensors), (".pth", _state_dict)])
def test_damaged_weights_fit_or_are_refused(tmp_path: Path, seed: int, ending: str, write: Callable[[], bytes]) -> None:
    chance, path, whole, refused = random.Random(seed), tmp_path / f"weights{ending}", write(), []
    for _ in range(_CASES):
        path.write_bytes(_damaged(whole, chance))
        try:
            _weights.install(_network(), str(path))
        except ConvkitError as error:
            refused.append(str(error))
    assert len(refused) > _CASES // 10, "damage that is never noticed was never done"
    assert not any("\n" in line for line in refused)


@pytest.mark.parametrize(("ending", "write"), [(".safetensors", _safetensors), (".pth", _state_dict)])
def test_whole_weights_fit(tmp_path: Path, ending: str, write: Callable[[], bytes]) -> None:
    path, network = tmp_path / f"weights{ending}", _network()
    path.write_bytes(write())
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    _weights.install(network, str(path))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), _network().parameters(), strict=True))
