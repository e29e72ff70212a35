"""Consistency: what a denoiser must be below the noise of its data, from what it is above.

E[x_0 | x_s] is a martingale along the reverse SDE: from x at level s down to x' at s' < s,

    D(x, s) = E[D(x', s') | x]

(Daras, Dagan, Dimakis, Daskalakis 2023, arXiv 2302.09057). Of K samples x'_k from one x, in two independent halves of
means m_1 and m_2 of D(x'_k, s'),

    L = <D(x, s) - m_1, D(x, s) - m_2>                    `unbiased`: expectation ||D - E D'||^2
    L = ||D(x, s) - (m_1 + m_2)/2||^2                     `paper`: the same plus Var(D')/K,

and the gradient runs through D at both ends, not through the sampler. The bias Var/K is smallest for a denoiser that
does not look at x', which is how it shrinks below the data's noise.

A step of the reverse SDE from t to t' is, in the form `unbiased`, exact for a D that stands still during it,

    x <- D + (t'/t)^2 (x - D) + t' sqrt(1 - (t'/t)^2) z,

and in the form `paper` Euler's,

    x <- x + 2 (t' - t)(x - D)/t + sqrt(2 |t' - t| t) z,

both on levels spaced with rho = 7. The first has the right mean at any length, so that one step is enough for a linear
denoiser; Euler's one step makes a denoiser consistent with the wrong mean.

Anchors x are wanted where nothing else trains: noisy images, brought to their lowest usable level and from there by the
model's own reverse SDE to s, uniform in ln s; s' = s exp(-u).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ambient_train import stateless
from ambient_train.diffusion.sampling import Denoiser

_RHO = 7.0

Noise = Callable[[int], Tensor]
"""Standard normal noise like x for step i."""


@dataclass(frozen=True)
class Anchors:
    """Where the term is evaluated, [B] each. index: positions of noisy images. start >= sigma >= lower, float64: levels
    of the noisy image, of the anchor and of the samples."""

    index: Tensor
    start: Tensor
    sigma: Tensor
    lower: Tensor


def draw_anchors(seed: int, sample: Tensor, levels: Tensor, *, buffer: float, sigma_min: float, span: float) -> Anchors:
    """Anchors of the samples [B] int64: an image uniformly among those with a level above 0, ln sigma uniform between
    `sigma_min` and buffer * its level, ln(sigma/lower) uniform in (0, span).

    levels: lowest level of every image [N], ascending, at least one of them above 0.
    """
    u = stateless.uniform(seed, "consistency", sample, 3)
    clean = int(torch.searchsorted(levels, levels.new_zeros(1), right=True))
    index = clean + (u[:, 0] * (len(levels) - clean)).long().clamp_max(len(levels) - clean - 1)
    start = buffer * levels[index].double()
    lowest = start.clamp_max(sigma_min)
    sigma = lowest * (start / lowest) ** u[:, 1]
    return Anchors(index, start, sigma, sigma * torch.exp(-span * u[:, 2]))


def reverse_sde(
    denoise: Denoiser, x: Tensor, start: Tensor, end: Tensor, steps: int, noise: Noise, form: str
) -> Tensor:
    """x [B, ...] at the levels `start` [B] brought to the levels `end` [B] in `steps` steps; see the module.

    denoise(x, sigma [B]) -> D.
    """
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=start.device)[:, None]
    high, low = start ** (1 / _RHO), end ** (1 / _RHO)
    levels = (high + ramp * (low - high)) ** _RHO
    for i in range(steps):
        t, following = levels[i], levels[i + 1]
        drift, z = x - denoise(x, t).to(x.dtype), noise(i).to(x.dtype)
        if form == "paper":
            x = x + _like(2 * (following - t) / t, x) * drift + _like((2 * (t - following) * t).sqrt(), x) * z
        else:
            kept = (following / t) ** 2
            x = x + _like(kept - 1, x) * drift + _like(following * (1 - kept).sqrt(), x) * z
    return x


def penalty(at: Tensor, below: Tensor, form: str) -> Tensor:
    """L of the module [B], summed over pixels. at: D(x, s) [B, ...]; below: D(x'_k, s') [K, B, ...], K even."""
    half = len(below) // 2
    if form == "paper":
        first = second = at - below.mean(0)
    else:
        first, second = at - below[:half].mean(0), at - below[half:].mean(0)
    return (first * second).flatten(1).sum(1)


def consistency(
    denoise: Callable[[Tensor, Tensor, int], Tensor],
    x: Tensor,
    anchors: Anchors,
    noise: Callable[[str], Tensor],
    *,
    samples: int,
    steps: int,
    form: str,
) -> Tensor:
    """L of each anchor [B], from images x [B, ...] at the levels `anchors.start`.

    denoise(x, sigma, copies) -> D for a batch that repeats the images' rows `copies` times. noise(purpose): standard
    normal like x. samples: K, even for the form `unbiased`. Costs steps (1 + K) evaluations without gradient and
    1 + K with it, for each anchor.
    """
    levels, k = anchors, samples
    with torch.no_grad():
        x = reverse_sde(
            lambda v, t: denoise(v, t, 1), x, levels.start, levels.sigma, steps, lambda i: noise(f"anchor-{i}"), form
        )
        copies = x.repeat(k, *[1] * (x.ndim - 1))
        ends = reverse_sde(
            lambda v, t: denoise(v, t, k),
            copies,
            levels.sigma.repeat(k),
            levels.lower.repeat(k),
            steps,
            lambda i: torch.cat([noise(f"sample-{j}-{i}") for j in range(k)]),
            form,
        )
    every = denoise(torch.cat([x, ends]), torch.cat([levels.sigma, levels.lower.repeat(k)]), k + 1)
    return penalty(every[: len(x)], every[len(x) :].unflatten(0, (k, len(x))), form)


def default_batch(batch: int) -> int:
    """Anchors of a step for `batch` training images: a sixteenth, so that a step costs at most 1.5 plain ones."""
    return math.ceil(batch / 16)


def _like(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
