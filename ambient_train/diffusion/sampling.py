"""Sampling: the schedule is data, the sampler a function of (denoiser, start, schedule).

Heun's second-order method for dx/dsigma = (x - D(x, sigma))/sigma, optionally with churn (Karras et al. 2022,
arXiv 2206.00364, Algorithms 1 and 2). Image k is a function of seed k alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.diffusion.sampler_config import GeneralSamplerConfig, SamplerConfig

Denoiser = Callable[[Tensor, Tensor], Tensor]


Sampler = SamplerConfig | GeneralSamplerConfig
"""Settings of a sampler."""


def integrate(
    config: Sampler, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor] | None = None
) -> Tensor:
    """From unit latents [B, C, H, W] ~ N(0, I) to images, float64; noise(i): see `heun`."""
    if isinstance(config, GeneralSamplerConfig):
        from ambient_train.diffusion.ablation_sampler import general_sampler

        return general_sampler(denoise, latents, config, noise=noise)
    sigmas = sigma_schedule(config).to(latents.device)
    return heun(
        denoise,
        latents.to(torch.float64) * sigmas[0],
        sigmas,
        solver=config.solver,
        churn=config.churn,
        s_min=config.s_min,
        s_max=config.s_max,
        s_noise=config.s_noise,
        stop_sigma=config.stop_sigma,
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
            out = integrate(config, denoise_batch, latents, noise)
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
