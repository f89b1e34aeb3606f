"""convkit: trained conv net in, smallest and fastest equal network out, with the proof."""

__version__ = "0.1.0"
