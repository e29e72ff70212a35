"""Distillation of Gaussians by linear denoisers, with the losses of the real thing: what a run of images does, small.

A denoiser is D = c_skip x + c_out c_in F(sigma) x with a matrix F at knots over ln sigma above the noise of the data,
linear between them, and below the lowest knot the same as there: like a network, it extrapolates, and wrongly.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.diffusion.denoising_error import DenoisingErrorTracker
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.settings.config import TrainConfig
from ambient_train.training import distillation
from ambient_train.training.batches import batch_loss

SD, KNOTS = 0.5, 12


class Linear(nn.Module):
    """See the module. covariance [d, d]: of the data whose true denoiser it is at the knots and above `lowest`."""

    def __init__(self, covariance: Tensor, lowest: float):
        super().__init__()
        self.d = len(covariance)
        self.low, self.high = math.log(lowest), math.log(40.0)
        s = torch.exp(torch.linspace(self.low, self.high, KNOTS, dtype=torch.float64))[:, None, None]
        eye = torch.eye(self.d, dtype=torch.float64)
        true = covariance @ torch.linalg.inv(covariance + s**2 * eye)
        skip, out = SD**2 / (s**2 + SD**2), s * SD / (s**2 + SD**2)
        self.f = nn.Parameter(((true - skip * eye) / out).float())

    def matrix(self, sigma: Tensor) -> Tensor:
        s = sigma.reshape(-1, 1, 1).float()
        place = ((s.log() - self.low) / (self.high - self.low) * (KNOTS - 1)).clamp(0, KNOTS - 1 - 1e-5)
        below = place.long().flatten()
        f = torch.lerp(self.f[below], self.f[below + 1], place - below[:, None, None])
        return SD**2 / (s**2 + SD**2) * torch.eye(self.d) + s * SD / (s**2 + SD**2) * f

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Any = None, augment_labels: Any = None) -> Tensor:
        flat = x.float().flatten(1)[:, :, None]
        return (self.matrix(sigma) @ flat).reshape(x.shape)


def mixture(d: int, n_clean: int, n_noisy: int, sigma_n: float) -> TrainingSet:
    """Images without content: only their number and their levels count."""
    n = n_clean + n_noisy
    source = ImageSet("toy", np.zeros((n, 1, 1, d), np.uint8), None, np.arange(n, dtype=np.int64))
    return corrupt(source, n_clean=n_clean, n_noisy=n_noisy, sigma_n=sigma_n, seed=0)


def covariance_of(generator: Linear, sigma: float = 2.5) -> Tensor:
    """Of the generator's images, exactly."""
    with torch.no_grad():
        w = sigma * generator.matrix(torch.tensor([sigma]))[0].double()
    return w @ w.T


def distilled(
    covariance: Tensor,
    data: TrainingSet,
    *,
    steps: int,
    batch: int = 512,
    lr: float = 0.01,
    critic_on: TrainingSet | None = None,
) -> Tensor:
    """Covariance of the averaged generator after `steps` steps. critic_on: levels that the critic is trained with."""
    draws = TrainConfig(n_clean=data.n_clean, n_noisy=data.n_noisy, sigma_n=float(data.sigma_n.max()), seed=11)
    levels = data if critic_on is None else critic_on
    critic_draws = replace(draws, n_clean=levels.n_clean, n_noisy=levels.n_noisy, sigma_n=float(levels.sigma_n.max()))
    lowest = max(float(data.sigma_n.max()) * draws.buffer if data.n_clean == 0 else 0.0, 0.02)
    teacher = Linear(covariance, lowest).requires_grad_(False)
    generator, critic = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
    average = copy.deepcopy(generator)
    state = SimpleNamespace(label_dim=0)
    tracker, table = DenoisingErrorTracker(), LevelTable.of(levels.levels)
    optimisers = [torch.optim.Adam(n.parameters(), lr=lr, betas=(0.0, 0.999), fused=True) for n in (critic, generator)]
    for step in range(steps):
        sample = torch.arange(step * batch, (step + 1) * batch)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
            optimiser.zero_grad()
        made = distillation.critic_batch(critic_draws, generator, levels, table, sample, 0)
        batch_loss(critic_draws, critic, made, table, tracker)[0].mean().backward()
        optimisers[0].step()
        critic.requires_grad_(False)
        networks = (generator, teacher, critic)
        distillation.generator_losses(draws, state, networks, data, sample).mean().backward()  # type: ignore[arg-type]
        critic.requires_grad_(True)
        optimisers[1].step()
        with torch.no_grad():
            average.f.lerp_(generator.f, 0.02)
    return covariance_of(average)


def error(found: Tensor, true: Tensor) -> float:
    """Largest relative error of the variance in a direction: of the eigenvalues of true^-1/2 found true^-1/2."""
    values, vectors = torch.linalg.eigh(true)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    return float((torch.linalg.eigvalsh(root @ found @ root) - 1).abs().max())
