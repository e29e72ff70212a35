"""Sampling: the schedule is data, the sampler a function of (denoiser, start, schedule).

Heun's second-order method for dx/dsigma = (x - D(x, sigma))/sigma, optionally with churn (Karras et al. 2022,
arXiv 2206.00364, Algorithms 1 and 2). Image k is a function of seed k alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless

Denoiser = Callable[[Tensor, Tensor], Tensor]
SOLVERS = ("heun", "euler")


class Sampler(Protocol):
    """Settings of a sampler, which can be carried out; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def integrate(self, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """From unit latents [B, C, H, W] ~ N(0, I) to images, float64; noise(i): see `heun`."""
        ...


@dataclass(frozen=True)
class SamplerConfig:
    """Steps and levels of a sampler.

    steps: number of levels above 0. sigma_min, sigma_max, rho: the schedule of `sigma_schedule`. churn, s_min, s_max,
    s_noise: stochasticity (Karras et al. 2022, Algorithm 2). stop_sigma: return D at the first level below it (0 = go
    down to 0); for models trained on noisy images only, whose denoiser is untrained below the data's noise.
    """

    steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0
    solver: str = "heun"
    stop_sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps {self.steps}: at least 1 is needed")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UsageError(f"sigma-min {self.sigma_min} and sigma-max {self.sigma_max} must satisfy 0 < min < max")
        if not self.rho > 0:
            raise UsageError(f"rho {self.rho} must be > 0")
        if not (self.churn >= 0 and self.s_noise >= 0 and self.stop_sigma >= 0):
            raise UsageError("churn, s-noise and stop-sigma must be >= 0")
        if self.solver not in SOLVERS:
            raise UsageError(f"solver {self.solver!r} is not one of {', '.join(SOLVERS)}")

    def integrate(self, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """`heun` down the schedule, from unit latents [B, C, H, W] ~ N(0, I)."""
        sigmas = sigma_schedule(self).to(latents.device)
        return heun(
            denoise,
            latents.to(torch.float64) * sigmas[0],
            sigmas,
            solver=self.solver,
            churn=self.churn,
            s_min=self.s_min,
            s_max=self.s_max,
            s_noise=self.s_noise,
            stop_sigma=self.stop_sigma,
            noise=noise,
        )


def sigma_schedule(config: SamplerConfig) -> Tensor:
    """[steps + 1] float64, descending to 0: sigma_i = (max^(1/rho) + i/(steps-1) (min^(1/rho) - max^(1/rho)))^rho."""
    ramp = torch.linspace(0, 1, config.steps, dtype=torch.float64)
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return torch.cat([(high + ramp * (low - high)) ** config.rho, torch.zeros(1, dtype=torch.float64)])


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
    """Integrate from x ~ N(0, sigmas[0]^2 I) [B, C, H, W] down the schedule `sigmas` [T + 1]; float64 state.

    denoise(x, sigma) -> D: sigma a scalar tensor. noise(i) -> [B, C, H, W] standard normal for step i (needed when
    churn > 0). solver "euler" leaves out the correction. Returns float64 [B, C, H, W].
    """
    steps = len(sigmas) - 1
    x = x.to(torch.float64)
    for i in range(steps):
        sigma, below = sigmas[i], sigmas[i + 1]
        if float(sigma) < stop_sigma:
            return denoise(x, sigma).to(torch.float64)
        gamma = min(churn / steps, math.sqrt(2) - 1) if s_min <= float(sigma) <= s_max else 0.0
        if gamma > 0:
            if noise is None:
                raise UsageError("churn > 0 needs a source of noise")
            raised = sigma * (1 + gamma)
            x = x + (raised**2 - sigma**2).sqrt() * s_noise * noise(i).to(torch.float64)
            sigma = raised
        slope = (x - denoise(x, sigma).to(torch.float64)) / sigma
        ahead = x + (below - sigma) * slope
        if below > 0 and solver == "heun":
            slope_ahead = (ahead - denoise(ahead, below).to(torch.float64)) / below
            ahead = x + (below - sigma) * 0.5 * (slope + slope_ahead)
        x = ahead
    return x


def sample(
    denoise: Callable[..., Tensor],
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    config: Sampler,
    *,
    batch: int = 256,
    device: torch.device | str = "cpu",
    class_labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """Batches of images [b, C, H, W] float32 in units of [-1, 1], one per seed, in the order of `seeds`.

    denoise(x float64, sigma, class_labels=...) -> D, e.g. an EDMPrecond. class_labels: [len(seeds), label_dim].
    Image k is a function of seeds[k] alone: latents and churn are keyed by it.
    """
    for start in range(0, len(seeds), batch):
        index = torch.tensor(list(seeds[start : start + batch]), dtype=torch.int64, device=device)
        labels = None if class_labels is None else class_labels[start : start + batch].to(device)
        latents = stateless.normal(0, "latent", index, shape)

        def noise(step: int, index: Tensor = index) -> Tensor:
            return stateless.normal(0, f"churn-{step}", index, shape)

        def denoise_batch(x: Tensor, sigma: Tensor, labels: Tensor | None = labels) -> Tensor:
            return denoise(x, sigma) if labels is None else denoise(x, sigma, class_labels=labels)

        with torch.no_grad():
            out = config.integrate(denoise_batch, latents, noise)
        yield out.to(torch.float32)


def parse_seeds(text: str) -> list[int]:
    """`0-49999`, `1,5,9-12`: the listed seeds in order. Raises UsageError on anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"seeds {text!r}: give numbers and ranges such as 0-63 or 1,5,9-12")
        seeds.extend(range(int(first), int(last if dash else first) + 1))
    if not seeds:
        raise UsageError(f"seeds {text!r}: the range is empty")
    return seeds
