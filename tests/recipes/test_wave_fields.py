"""The solver keeps what waves keep, and is the wave equation where that is solved exactly."""

import numpy as np
import pytest

from convkit.recipes.nets import wave_fields

pytest.importorskip("skfem")


def test_a_standing_wave_swings_at_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """cos(πx) cos(πy) between walls at speed c: cos(√2 π c t) of itself; the oracle is that formula."""
    speed = np.full((wave_fields.SIDE, wave_fields.SIDE), 0.8)
    stiffness, mass = wave_fields._elements(speed)
    x, y = np.meshgrid(*[np.linspace(0, 1, wave_fields.SIDE)] * 2)
    shape = (np.cos(np.pi * x) * np.cos(np.pi * y)).ravel()
    step, pace = 0.004, np.sqrt(2) * np.pi * 0.8
    before, now = shape * np.cos(pace * -step), shape.copy()
    for index in range(1, 251):
        before, now = now, 2 * now - before - step**2 * (stiffness @ now) / mass
        if index % 50 == 0:
            assert np.abs(now - shape * np.cos(pace * index * step)).max() < 0.02


def test_runs_differ_by_their_seed_alone() -> None:
    first, speed = wave_fields.run(3, steps=8)
    again, same = wave_fields.run(3, steps=8)
    other, _ = wave_fields.run(4, steps=8)
    assert np.array_equal(first, again)
    assert np.array_equal(speed, same)
    assert not np.allclose(first, other)
    assert np.abs(first).max() == 1


def test_what_a_network_reads_is_what_comes_before() -> None:
    read, wanted = wave_fields.pairs(range(2))
    frames, speed = wave_fields.run(0)
    assert read["input"].shape == (2 * (wave_fields.STEPS - 2), 3, wave_fields.SIDE, wave_fields.SIDE)
    np.testing.assert_allclose(read["input"][5, 1], frames[6], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(wanted[5, 0], frames[7], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(read["input"][5, 2], speed, rtol=1e-6)


def test_a_roll_out_reads_its_own_frames() -> None:
    frames, speed = wave_fields.run(0, steps=10)
    network = wave_fields.build(4, 2, 3).eval()
    made = wave_fields.rolled(network, frames, speed, 3)
    again = wave_fields.rolled(network, np.stack([frames[1], made[0]]), speed, 2)
    np.testing.assert_allclose(made[1:], again, rtol=1e-5, atol=1e-7)
