"""float32: what a network is given in; nothing is rounded."""

from convkit.compress.floating import Plain

PART = Plain("32-bit float", 32, "float32")
