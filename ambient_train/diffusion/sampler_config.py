"""Settings of the samplers: EDM's, and the general one of its ablation. Nothing heavy is imported here.

Karras et al. 2022, arXiv 2206.00364: Algorithms 1 and 2, and Table 1 with Appendix C for the general one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option

SOLVERS = ("heun", "euler")
DISCRETIZATIONS = ("edm", "vp", "ve", "iddpm")
SCHEDULES = ("linear", "vp", "ve")
SCALINGS = ("none", "vp")
VP_BETA_D, VP_BETA_MIN = 19.9, 0.1
"""The published VP process: sigma(t)^2 + 1 = exp(beta_d t^2/2 + beta_min t)."""

_PANEL = "Sampler"
_ABLATION = "Sampler: choices of EDM's ablation"


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Checked):
    """Steps and levels of EDM's sampler; each field says what it is."""

    steps: int = option(18, "Noise levels above 0", at_least=1, panel=_PANEL)
    sigma_min: float = option(0.002, "Lowest noise level", above=0, panel=_PANEL)
    sigma_max: float = option(80.0, "Highest noise level", above=0, panel=_PANEL)
    rho: float = option(7.0, "Exponent of the schedule", above=0, panel=_PANEL)
    churn: float = option(0.0, "Stochasticity S_churn, 0 = none", at_least=0, panel=_PANEL)
    s_min: float = option(0.0, "Lowest level with churn", at_least=0, panel=_PANEL)
    s_max: float = option(math.inf, "Highest level with churn", at_least=0, finite=False, panel=_PANEL)
    s_noise: float = option(1.0, "Inflation of the noise that churn adds", at_least=0, panel=_PANEL)
    solver: str = option("heun", "Order of the steps", choices=SOLVERS, panel=_PANEL)
    stop_sigma: float = option(
        0.0,
        "Return the denoised image at the first level below this one, 0 = go down to 0; for models trained on noisy "
        "images only, whose denoiser is untrained below the data's noise",
        at_least=0,
        panel=_PANEL,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise UsageError(f"sigma-min {self.sigma_min} and sigma-max {self.sigma_max} must satisfy 0 < min < max")


@dataclass(frozen=True, kw_only=True)
class GeneralSamplerConfig(Checked):
    """Choices of the general sampler; sigma_min and sigma_max None take the discretization's published values."""

    steps: int = option(18, "Noise levels above 0", at_least=2, panel=_PANEL)
    solver: str = option("heun", "Order of the steps", choices=SOLVERS, panel=_PANEL)
    discretization: str = option("edm", "Noise levels of the ablation", choices=DISCRETIZATIONS, panel=_ABLATION)
    schedule: str = option("linear", "sigma(t)", choices=SCHEDULES, panel=_ABLATION)
    scaling: str = option("none", "s(t)", choices=SCALINGS, panel=_ABLATION)
    sigma_min: float | None = option(None, "Lowest noise level", above=0, panel=_PANEL)
    sigma_max: float | None = option(None, "Highest noise level", above=0, panel=_PANEL)
    rho: float = option(7.0, "Exponent of the edm levels", above=0, panel=_PANEL)
    epsilon_s: float = option(1e-3, "Smallest time of the vp levels", above=0, below=1, panel=_ABLATION)
    c_1: float = option(0.001, "C_1 of the iddpm levels", above=0, below=1, flag="--c-1", panel=_ABLATION)
    c_2: float = option(0.008, "C_2 of the iddpm levels", above=0, flag="--c-2", panel=_ABLATION)
    m: int = option(1000, "Number M of iddpm levels", at_least=2, flag="--m", panel=_ABLATION)
    alpha: float = option(
        1.0,
        "Where Heun's second slope is taken: 1 = end of the step, .5 = midpoint",
        above=0,
        at_most=1,
        panel=_ABLATION,
    )
    churn: float = option(0.0, "Stochasticity S_churn, 0 = none", at_least=0, panel=_PANEL)
    s_min: float = option(0.0, "Lowest level with churn", at_least=0, panel=_PANEL)
    s_max: float = option(math.inf, "Highest level with churn", at_least=0, finite=False, panel=_PANEL)
    s_noise: float = option(1.0, "Inflation of the noise that churn adds", at_least=0, panel=_PANEL)
    stop_sigma: float = option(
        0.0, "Return the denoised image at the first level below this one, 0 = never", at_least=0, panel=_PANEL
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.bounds
        if not 0 < low < high < math.inf:
            raise UsageError(f"sigma-min {low} and sigma-max {high} must satisfy 0 < min < max")

    @property
    def bounds(self) -> tuple[float, float]:
        """(sigma_min, sigma_max), the published ones of the discretization where not given (Table 1)."""
        low, high = {
            "edm": (0.002, 80.0),
            "ve": (0.02, 100.0),
            "iddpm": (0.002, 81.0),
            "vp": tuple(math.sqrt(math.expm1(0.5 * VP_BETA_D * t**2 + VP_BETA_MIN * t)) for t in (self.epsilon_s, 1.0)),
        }[self.discretization]
        return (low if self.sigma_min is None else self.sigma_min, high if self.sigma_max is None else self.sigma_max)


GENERAL_ONLY = frozenset(GeneralSamplerConfig.__dataclass_fields__) - frozenset(SamplerConfig.__dataclass_fields__)
"""Choices that only the general sampler has."""
