"""Learned scales: learned rounding that also fits each channel's scale, codes and scales in turn.

Nearer to the float network on data like the calibration's, further from it on other data: what a range leaves out is
what the calibration never needed. Take it where that is representative.
"""

from __future__ import annotations

import functools

from convkit.compress.method import Method
from convkit.compress.methods.learned_round import learn

PART = Method(
    change=functools.partial(learn, scales=True),
    before=False,
    exact=False,
    learns=True,
)
