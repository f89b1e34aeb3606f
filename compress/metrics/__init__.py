"""Ways to score a network's outputs, one a file; see `compress/metric.py`."""
