"""Settings of the samplers, and which values are allowed. Torch is loaded only when a sampler runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.sampling import Denoiser

SOLVERS = ("heun", "euler")
DISCRETIZATIONS = ("edm", "vp", "ve", "iddpm")
SCHEDULES = ("linear", "vp", "ve")
SCALINGS = ("none", "vp")
VP_BETA_D, VP_BETA_MIN = 19.9, 0.1
"""The published VP process: sigma(t)^2 + 1 = exp(beta_d t^2/2 + beta_min t)."""


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """What all samplers share: how many steps, and how one is taken."""

    steps: int = 18
    """Number of noise levels above 0."""
    solver: str = "heun"
    """heun (second order, two evaluations a step) | euler."""
    rho: float = 7.0
    """Exponent of EDM's levels: larger puts more of them near sigma_min."""
    churn: float = 0.0
    """Noise added and removed again on the way (Karras et al. 2022, Algorithm 2); 0 = none."""
    s_min: float = 0.0
    """Lowest level with churn."""
    s_max: float = math.inf
    """Highest level with churn."""
    s_noise: float = 1.0
    """Standard deviation of the churn's unit noise."""
    stop_sigma: float = 0.0
    """Return D at the first level below it (0 = go down to 0); for models trained on noisy images only, whose denoiser
    is untrained below the data's noise."""

    @property
    def bounds(self) -> tuple[float, float]:
        """(sigma_min, sigma_max) that the levels span."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise UsageError(f"rho {self.rho} must be > 0")
        if not (self.churn >= 0 and self.s_noise >= 0 and self.stop_sigma >= 0):
            raise UsageError("churn, s-noise and stop-sigma must be >= 0")
        if self.solver not in SOLVERS:
            raise UsageError(f"solver {self.solver!r} is not one of {', '.join(SOLVERS)}")
        low, high = self.bounds
        if not 0 < low < high < math.inf:
            raise UsageError(f"sigma-min {low} and sigma-max {high} must satisfy 0 < min < max")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Stepping):
    """EDM's sampler. Raises UsageError for values that are not allowed."""

    sigma_min: float = 0.002
    """Lowest level above 0."""
    sigma_max: float = 80.0
    """Highest level."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps {self.steps}: at least 1 is needed")
        super().__post_init__()

    @property
    def bounds(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def integrate(self, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """From unit latents [B, C, H, W] ~ N(0, I) to images, float64; see `sampling.edm_sampler`."""
        from ambient_train.diffusion.sampling import edm_sampler

        return edm_sampler(denoise, latents, self, noise=noise)


@dataclass(frozen=True, kw_only=True)
class GeneralSamplerConfig(Stepping):
    """Choices of the general sampler (Karras et al. 2022, arXiv 2206.00364, Table 1), freely combined.

    Raises UsageError for values that are not allowed.
    """

    discretization: str = "edm"
    """Of the noise levels: edm | vp | ve | iddpm."""
    schedule: str = "linear"
    """sigma(t): linear | vp | ve."""
    scaling: str = "none"
    """s(t): none | vp."""
    sigma_min: float | None = None
    """Lowest level above 0; None = the discretization's published one."""
    sigma_max: float | None = None
    """Highest level; None = the discretization's published one."""
    epsilon_s: float = 1e-3
    """Smallest time of the vp levels."""
    c_1: float = 0.001
    """Of the iddpm levels."""
    c_2: float = 0.008
    """Of the iddpm levels."""
    m: int = 1000
    """Number of iddpm levels to choose from."""
    alpha: float = 1.0
    """Where Heun's second slope is taken: 1 = the end of the step, 1/2 = its middle."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("discretization", DISCRETIZATIONS),
            ("schedule", SCHEDULES),
            ("scaling", SCALINGS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        if self.steps < 2:
            raise UsageError(f"steps {self.steps}: the general sampler needs at least 2")
        if not (0 < self.epsilon_s < 1 and 0 < self.c_1 < 1 and self.c_2 > 0 and self.m >= 2):
            raise UsageError("epsilon-s and c-1 must lie between 0 and 1, c-2 above 0, m at 2 or more")
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha {self.alpha} is not in (0, 1]")
        super().__post_init__()

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

    def integrate(self, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """From unit latents [B, C, H, W] ~ N(0, I) to images, float64; see `ablation_sampler.general_sampler`."""
        from ambient_train.diffusion.ablation_sampler import general_sampler

        return general_sampler(denoise, latents, self, noise=noise)
