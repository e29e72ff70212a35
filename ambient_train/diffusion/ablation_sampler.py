"""The other flows of Karras et al. 2022 (arXiv 2206.00364): every choice of its Table 1, freely combined.

With a schedule sigma(t) and a scaling s(t) the probability-flow ODE is (their equation 81)

    dx/dt = (sigma'/sigma) (x - s D(x/s; sigma)) + (s'/s) x,

integrated over times t_i = sigma^-1(sigma_i) for a discretisation sigma_0 > ... > sigma_{N-1}, and t_N = 0, by Euler's
or Heun's method (Algorithm 1), with churn as in Algorithm 2. `edm`, `linear`, `none`, `heun` is EDM's own sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.sampler_settings import (
    DISCRETIZATIONS,
    SCALINGS,
    SCHEDULES,
    VP_BETA_D,
    VP_BETA_MIN,
    GeneralSamplerConfig,
)
from ambient_train.diffusion.sampling import Denoiser, edm_levels, integrate, step_settings

__all__ = [
    "DISCRETIZATIONS",
    "SCALINGS",
    "SCHEDULES",
    "VP_BETA_D",
    "VP_BETA_MIN",
    "GeneralSamplerConfig",
    "VPSchedule",
    "general_sampler",
    "make_schedule",
    "noise_levels",
]


class Schedule(Protocol):
    """sigma(t), its derivative and its inverse, on float64 scalars."""

    def sigma(self, t: Tensor) -> Tensor: ...
    def derivative(self, t: Tensor) -> Tensor: ...
    def inverse(self, sigma: Tensor) -> Tensor: ...


class LinearSchedule:
    """sigma(t) = t (EDM, iDDPM)."""

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def derivative(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def inverse(self, sigma: Tensor) -> Tensor:
        return sigma


class VESchedule:
    """sigma(t) = sqrt(t) (Song et al. 2021, variance exploding)."""

    def sigma(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def derivative(self, t: Tensor) -> Tensor:
        return 0.5 / t.sqrt()

    def inverse(self, sigma: Tensor) -> Tensor:
        return sigma**2


@dataclass(frozen=True)
class VPSchedule:
    """sigma(t)^2 = exp(beta_d t^2/2 + beta_min t) - 1 (Song et al. 2021, variance preserving)."""

    beta_d: float
    beta_min: float

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, epsilon_s: float) -> VPSchedule:
        """The one with sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max: two linear equations in the betas."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
        schedule = cls(beta_d, high - 0.5 * beta_d)
        if not (schedule.beta_d > 0 and schedule.beta_min + schedule.beta_d * epsilon_s > 0):  # sigma(t) must rise
            raise UsageError(
                f"no vp schedule has sigma({epsilon_s:g}) = {sigma_min:g} and sigma(1) = {sigma_max:g}: "
                "use a smaller sigma-min or a larger epsilon-s"
            )
        return schedule

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t).sqrt()

    def derivative(self, t: Tensor) -> Tensor:
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma)

    def inverse(self, sigma: Tensor) -> Tensor:
        return ((self.beta_min**2 + 2 * self.beta_d * torch.log1p(sigma**2)).sqrt() - self.beta_min) / self.beta_d


def make_schedule(config: GeneralSamplerConfig) -> Schedule:
    """The schedule of a config."""
    if config.schedule == "vp":
        return VPSchedule.between(*config.bounds, config.epsilon_s)
    return VESchedule() if config.schedule == "ve" else LinearSchedule()


def noise_levels(config: GeneralSamplerConfig) -> Tensor:
    """sigma_0 > ... > sigma_{N-1} of the discretization, [steps] float64 (Table 1, "time steps").

    Raises UsageError if the iddpm grid has fewer levels than steps.
    """
    low, high = config.bounds
    ramp = torch.linspace(0, 1, config.steps, dtype=torch.float64)
    if config.discretization == "edm":
        return edm_levels(config)
    if config.discretization == "ve":
        return (high**2 * (low**2 / high**2) ** ramp).sqrt()
    if config.discretization == "vp":
        return VPSchedule.between(low, high, config.epsilon_s).sigma(1 + ramp * (config.epsilon_s - 1))
    grid = [0.0]  # u_M = 0, then u_{j-1} from u_j

    def alpha_bar(j: int) -> float:
        return math.sin(0.5 * math.pi * j / config.m / (config.c_2 + 1)) ** 2

    for j in range(config.m, 0, -1):
        ratio = max(alpha_bar(j - 1) / alpha_bar(j), config.c_1)
        grid.append(math.sqrt((grid[-1] ** 2 + 1) / ratio - 1))
    levels = torch.tensor(grid[::-1], dtype=torch.float64)
    levels = levels[(levels >= low) & (levels <= high)]
    if len(levels) < config.steps:
        raise UsageError(f"the iddpm grid has {len(levels)} levels in [{low:g}, {high:g}], fewer than {config.steps}")
    return levels[((len(levels) - 1) * ramp).round().to(torch.int64)]


@dataclass(frozen=True)
class GeneralFlow:
    """The flow of a schedule sigma(t) and a scaling s(t); see the module's equation. Methods as in `Flow`."""

    schedule: Schedule
    scaling: str

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)

    def time(self, sigma: Tensor) -> Tensor:
        return self.schedule.inverse(sigma)

    def scale(self, t: Tensor) -> Tensor:
        return 1 / (1 + self.sigma(t) ** 2).sqrt() if self.scaling == "vp" else torch.ones_like(t)

    def scale_derivative(self, t: Tensor) -> Tensor:
        """s'(t)."""
        if self.scaling == "none":
            return torch.zeros_like(t)
        return -self.sigma(t) * self.schedule.derivative(t) * self.scale(t) ** 3

    def slope(self, denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
        sigma, s = self.sigma(t), self.scale(t)
        towards = x - s * denoise(x / s, sigma).to(torch.float64)
        return self.schedule.derivative(t) * towards / sigma + self.scale_derivative(t) / s * x


def general_sampler(
    denoise: Denoiser,
    latents: Tensor,
    config: GeneralSamplerConfig,
    *,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Sample from unit latents [B, C, H, W] ~ N(0, I); float64 state and result. denoise, noise: see `integrate`."""
    flow = GeneralFlow(make_schedule(config), config.scaling)
    times = flow.time(noise_levels(config).to(latents.device))
    times = torch.cat([times, torch.zeros_like(times[:1])])
    x = latents.to(torch.float64) * (flow.sigma(times[0]) * flow.scale(times[0]))
    return integrate(denoise, x, times, flow, alpha=config.alpha, noise=noise, **step_settings(config))
