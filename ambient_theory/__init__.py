"""Gaussian mixtures with heterogeneous noise: bounds, estimators, simulator, and the comparison with experiments.

    from ambient_theory import HeteroscedasticMixture, bounds, compare, fit_gmm, simulate

Nothing in this package imports torch, and nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.lazy import lazily

if TYPE_CHECKING:
    from ambient_theory import bounds as bounds
    from ambient_theory import compare as compare
    from ambient_theory.mixtures.estimators import HeteroscedasticMixture as HeteroscedasticMixture
    from ambient_theory.own_data.run import fit_gmm as fit_gmm
    from ambient_theory.simulation.api import simulate as simulate

__version__ = "0.1.0"

_PLACES = {
    "HeteroscedasticMixture": "ambient_theory.mixtures.estimators:HeteroscedasticMixture",
    "bounds": "ambient_theory.bounds:",
    "compare": "ambient_theory.compare:",
    "fit_gmm": "ambient_theory.own_data.run:fit_gmm",
    "simulate": "ambient_theory.simulation.api:simulate",
}

__getattr__, __dir__ = lazily(__name__, _PLACES)
