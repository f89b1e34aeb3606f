"""Parity: whether engines compute what the simulation computes, output by output and layer by layer."""
