"""Sampling: the noise levels are data, the flow a small object, the integrator one loop over both.

The probability-flow ODE dx/dt = slope(x, t) is integrated by Euler's or Heun's method, optionally with churn (Karras et
al. 2022, arXiv 2206.00364, Algorithms 1 and 2). EDM's own flow has sigma(t) = t and no scaling, so that
slope = (x - D(x, sigma))/sigma; the others of its Table 1 are in `ablation_sampler`. Image k is a function of seed k
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.sampler_settings import SOLVERS, SamplerConfig, Stepping

__all__ = [
    "SOLVERS",
    "Denoiser",
    "Flow",
    "SamplerConfig",
    "edm_sampler",
    "heun",
    "integrate",
    "parse_seeds",
    "sigma_schedule",
]

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Flow(Protocol):
    """A path x(t) = s(t) (x_0 + sigma(t) z) from noise to an image; all on float64."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time t."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of `sigma`."""
        ...

    def scale(self, t: Tensor) -> Tensor | float:
        """s(t)."""
        ...

    def slope(self, denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
        """dx/dt [B, C, H, W] at (x, t), t > 0."""
        ...


class EDMFlow:
    """sigma(t) = t, s(t) = 1: dx/dsigma = (x - D(x, sigma))/sigma."""

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, sigma: Tensor) -> Tensor:
        return sigma

    def scale(self, t: Tensor) -> float:
        return 1.0

    def slope(self, denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
        return (x - denoise(x, t).to(torch.float64)) / t


def sigma_schedule(config: SamplerConfig) -> Tensor:
    """[steps + 1] float64, descending to 0: sigma_i = (max^(1/rho) + i/(steps-1) (min^(1/rho) - max^(1/rho)))^rho."""
    return torch.cat([edm_levels(config), torch.zeros(1, dtype=torch.float64)])


def edm_levels(config: Stepping) -> Tensor:
    """The levels above 0 of `sigma_schedule`, [steps] float64 (Karras et al. 2022, Table 1)."""
    low, high = config.bounds
    ramp = torch.linspace(0, 1, config.steps, dtype=torch.float64)
    first, last = high ** (1 / config.rho), low ** (1 / config.rho)
    return (first + ramp * (last - first)) ** config.rho


def edm_sampler(
    denoise: Denoiser, latents: Tensor, config: SamplerConfig, *, noise: Callable[[int], Tensor] | None = None
) -> Tensor:
    """`heun` down EDM's levels, from unit latents [B, C, H, W] ~ N(0, I)."""
    sigmas = sigma_schedule(config).to(latents.device)
    return heun(denoise, latents.to(torch.float64) * sigmas[0], sigmas, noise=noise, **step_settings(config))


def step_settings(config: Stepping) -> dict[str, Any]:
    """The settings of single steps, for `integrate`."""
    return {name: getattr(config, name) for name in ("solver", "churn", "s_min", "s_max", "s_noise", "stop_sigma")}


def heun(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    solver: str = "heun",
    churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    stop_sigma: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """`integrate` EDM's flow from x ~ N(0, sigmas[0]^2 I) [B, C, H, W] down the levels `sigmas` [T + 1]."""
    return integrate(
        denoise,
        x,
        sigmas,
        EDMFlow(),
        solver=solver,
        churn=churn,
        s_min=s_min,
        s_max=s_max,
        s_noise=s_noise,
        stop_sigma=stop_sigma,
        noise=noise,
    )


def integrate(
    denoise: Denoiser,
    x: Tensor,
    times: Tensor,
    flow: Flow,
    *,
    solver: str = "heun",
    alpha: float = 1.0,
    churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    stop_sigma: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Integrate a flow from x = x(times[0]) [B, C, H, W] down `times` [T + 1]; float64 state and result.

    denoise(x, sigma) -> D: sigma a scalar tensor. noise(i) -> [B, C, H, W] standard normal for step i (needed when
    churn > 0). solver "euler" leaves out the correction, which a step to time 0 never has. alpha: where the second
    slope is taken, in units of the step. stop_sigma: end at this level, with the denoised image D there in place of x;
    the last step is shortened to meet it.
    Raises UsageError for churn without a source of noise.
    """
    steps = len(times) - 1
    x = x.to(torch.float64)
    if stop_sigma > 0:
        times = _down_to(times, flow, stop_sigma)
    for i in range(len(times) - 1):
        t, following = times[i], times[i + 1]
        sigma = flow.sigma(t)
        gamma = min(churn / steps, math.sqrt(2) - 1) if s_min <= float(sigma) <= s_max else 0.0
        if gamma > 0:
            if noise is None:
                raise UsageError("churn > 0 needs a source of noise")
            raised = flow.time(sigma * (1 + gamma))
            added = (flow.sigma(raised) ** 2 - sigma**2).clamp_min(0).sqrt() * flow.scale(raised)
            x = flow.scale(raised) / flow.scale(t) * x + added * s_noise * noise(i).to(torch.float64)
            t = raised
        step = following - t
        slope = flow.slope(denoise, x, t)
        if following > 0 and solver == "heun":
            between = following if alpha == 1 else t + alpha * step
            second = flow.slope(denoise, x + alpha * step * slope, between)
            weight = 1 / (2 * alpha)
            slope = (1 - weight) * slope + weight * second
        x = x + step * slope
    if stop_sigma > 0:
        return denoise(x / flow.scale(times[-1]), flow.sigma(times[-1])).to(torch.float64)
    return x


def _down_to(times: Tensor, flow: Flow, sigma: float) -> Tensor:
    """The times above a level, then that of the level; the first alone where that is not above it."""
    above = torch.tensor([float(flow.sigma(t)) > sigma for t in times])
    if not above[0]:
        return times[:1]
    last = flow.time(torch.as_tensor(sigma, dtype=times.dtype, device=times.device))
    return torch.cat([times[above.to(times.device)], last.reshape(1)])


MOST_SEEDS = 10_000_000
"""Images of one range of seeds."""


SEEDS_END = 10**15
"""Seeds of images lie below it."""


def parse_seeds(text: str) -> list[int]:
    """`0-49999`, `1,5,9-12`: the listed seeds in order. Raises UsageError on anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"seeds {text!r}: give numbers and ranges such as 0-63 or 1,5,9-12")
        if max(len(first), len(last)) >= len(str(SEEDS_END)):
            raise UsageError(f"seeds {text!r}: a seed is a whole number below 10^15")
        low, high = int(first), int(last if dash else first)
        if high - low >= MOST_SEEDS:
            raise UsageError(f"seeds {text!r}: {high - low + 1:,} images are too many for one command: {MOST_SEEDS:,}")
        seeds.extend(range(low, high + 1))
    if not seeds:
        raise UsageError(f"seeds {text!r}: the range is empty")
    return seeds
