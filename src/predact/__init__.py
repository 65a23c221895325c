"""Models that predict, and agents that act on the predictions."""

__version__ = "0.1.0"
