"""Gaussian mixtures with heterogeneous noise: bounds, estimators, simulator, and the comparison with experiments.

Nothing in this package imports torch.
"""

__version__ = "0.1.0"
