"""Restoration: what a noisy image y = x + sigma_n z can have been, under the law that a denoiser has learned.

The mean of that posterior is D(y, sigma_n). Samples of it are the reverse SDE from (y, sigma_n) down to 0; the
probability-flow ODE gives one point with the right marginal, which is no posterior sample. In the precision
s = 1/sigma^2 and u = x/sigma^2 the reverse SDE is an observation of x that goes on (Eldan 2013, arXiv 1203.0893;
El Alaoui & Montanari 2022, arXiv 2109.11925):

    u_s = s x_0 + W_s,      du = D ds + dB,      D(u, s) = E[x_0 | u_s], a martingale in s.

Over a step of length h the drift adds I = int D ds. D itself has no drift, dD = Cov(x_0 | u) dB with the innovation B,
so I = h D + Cov J to the second order, J = int (B_r - B_s) dr; the pair (dB, J) is Gaussian with variances h, h^3/3 and
covariance h^2/2 (Kloeden & Platen 1992, 10.4). J/h has the variance that B gains in a third of the step, hence one
evaluation there gives I:

    u* = u + (h/3) D(u, s) + J/h,     s* = s + h/3,     u' = u + h D(u*, s*) + dB.

Two evaluations a step like Heun's method; the mean is exact for linear denoisers, and at 18 levels the variance of a
Gaussian's samples is .6 to 2 % too small, where as many evaluations of ancestral sampling (Euler's method in s) miss 12
to 23 %. The last step returns D at the lowest level.

Noise of any covariance, y = x + N(0, S), is split at a level r^2 <= the smallest eigenvalue of S: with z between,

    z = x + N(0, r^2 I),    y = z + N(0, S - r^2 I),        hence y = x + N(0, S).

A Gibbs sampler draws x given z (the reverse SDE from (z, r)) and z given x and y (a Gaussian, `NoiseModel.split`) in
turn. Its stationary law is the posterior of x given y for every r, without an approximation beside those of the
denoiser and the step. (The splitting of Vono, Dobigeon & Chainais 2019, with a level that leaves no bias.) It starts at
the largest eigenvalue, where z is y with more noise added, and r falls to the smallest one within half of the sweeps:
directions of S above r^2 have their posterior at every r, so only the others are still to be learned. Eigenvalues below
(largest)/_SPAN^2 count as that: a white part is needed for a denoiser of white noise. All sweeps but the last take half
of the levels. For white noise z = y, and one sweep is the sampler above. With 12 sweeps of 18 levels the mean of a
Gaussian's posterior is .04 of its standard deviation off at most, and its variance 1 %.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train import stateless
from ambient_train.data.noise_models.white import MEMBER as WHITE
from ambient_train.diffusion.sampling import Denoiser

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel

MAX_SAMPLES = 2**16
QUANTILES = (0.05, 0.5, 0.95)
_LOWER = 4.0
_SPAN = 10.0
_RHO = 7.0
_KEY_BITS = 16

Noise = Callable[[int], tuple[Tensor, Tensor]]
"""Two independent standard normal tensors [B, C, H, W] for step i."""


def descent(sigma_n: Tensor, steps: int, sigma_min: float) -> Tensor:
    """Levels [B, steps] float64 from each image's own sigma_n [B] down to sigma_min, spaced as EDM's (rho = 7).

    Where sigma_n is not far above sigma_min, down to sigma_n/4. Raises UsageError unless steps >= 2 and levels are > 0.
    """
    if steps < 2:
        raise UsageError(f"steps {steps} must be >= 2")
    first = sigma_n.to(torch.float64)
    if not (sigma_min > 0 and bool((first > 0).all())):
        raise UsageError(f"noise levels and sigma_min ({sigma_min:g}) must be > 0: clean images need no restoration")
    last = (first / _LOWER).clamp_max(sigma_min)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device=first.device)
    high, low = first[:, None] ** (1 / _RHO), last[:, None] ** (1 / _RHO)
    levels = (high + ramp * (low - high)) ** _RHO
    levels[:, 0] = first
    return levels


def posterior_sample(denoise: Denoiser, y: Tensor, levels: Tensor, noise: Noise) -> Tensor:
    """One draw of x_0 given y [B, C, H, W] for each image, float64, by the scheme of this module.

    denoise(x [B, C, H, W], sigma [B]) -> D. levels: [B, T], descending, levels[:, 0] the noise of y. noise(i): called
    for i = 0 .. T - 2.
    """
    x, precision = y.to(torch.float64), levels.to(torch.float64) ** -2
    for i in range(levels.shape[1] - 1):
        s, following = _image(precision[:, i]), _image(precision[:, i + 1])
        h = following - s
        first, second = (z.to(torch.float64) for z in noise(i))
        increment = h.sqrt() * first
        integral = 0.5 * h * increment + h * (h / 12).sqrt() * second
        middle = s + h / 3
        drift = denoise(x, levels[:, i]).to(torch.float64)
        between = (s * x + h / 3 * drift + integral / h) / middle
        drift = denoise(between, middle.flatten() ** -0.5).to(torch.float64)
        x = (s * x + h * drift + increment) / following
    return denoise(x, levels[:, -1]).to(torch.float64)


def keyed_noise(seed: int, ids: Tensor, numbers: Tensor, shape: tuple[int, ...], purpose: str = "") -> Noise:
    """Noise of sample `numbers` [B] of the images `ids` [B]: a function of (seed, purpose, step, image id, number)."""
    index = (ids.to(torch.int64) << _KEY_BITS) | numbers.to(torch.int64)
    name = f"restore-{purpose}" if purpose else "restore"

    def noise(i: int) -> tuple[Tensor, Tensor]:
        return (
            stateless.normal(seed, f"{name}-{i}", index, shape),
            stateless.normal(seed, f"{name}-within-{i}", index, shape),
        )

    return noise


def keyed_draws(
    seed: int, ids: Tensor, numbers: Tensor, shape: tuple[int, ...], purpose: str, i: int
) -> tuple[Tensor, Tensor]:
    """`keyed_noise` of a purpose, for step i."""
    return keyed_noise(seed, ids, numbers, shape, purpose)(i)


def split_levels(noise: NoiseModel, sigma_n: Tensor, sweeps: int) -> Tensor:
    """The levels r [B, sweeps] of the Gibbs sampler: geometric from the largest to the smallest within half of them."""
    high = noise.lowest_level(sigma_n)
    low = torch.maximum(noise.highest_precision_level(sigma_n), high / _SPAN)
    falling = max((sweeps + 1) // 2, 1)
    share = (torch.arange(sweeps, dtype=torch.float64, device=sigma_n.device) / max(falling - 1, 1)).clamp_max(1)
    return high[:, None] * (low / high)[:, None] ** share


def split_sample(
    denoise: Denoiser,
    y: Tensor,
    noise: NoiseModel,
    sigma_n: Tensor,
    *,
    sweeps: int,
    steps: int,
    sigma_min: float,
    draws: Callable[[str, int], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """(one draw of x given y [B, C, H, W], E[x | z] of the last sweep) for noise of any covariance; see the module.

    draws(purpose, i): two independent standard normal tensors like y. The second result, averaged over draws, is the
    posterior mean with less scatter than the average of the first (Rao-Blackwell).
    """
    levels = split_levels(noise, sigma_n, sweeps)
    y = y.to(torch.float64)
    z = noise.diffuse(y, levels[:, 0], sigma_n, draws("split-start", 0)[0].to(torch.float64))
    x, level = y, levels[:, 0]
    for k in range(sweeps):
        level = levels[:, k]
        if k:
            z = noise.split(x, y, level, sigma_n, draws("split", k)[0].to(torch.float64))
        last = k == sweeps - 1
        own = functools.partial(draws, f"split-{k}")
        x = posterior_sample(denoise, z, descent(level, steps if last else max(steps // 2, 2), sigma_min), own)
    return x, denoise(z, level).to(torch.float64)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of n restored images, float32 in units of [-1, 1].

    mean: the posterior mean, [n, C, H, W]: D(y, sigma_n) for white noise, else an average over the samples. samples:
    [n, K, C, H, W]. Of the samples, per pixel: sample_mean, std, and quantiles [3, n, C, H, W] at QUANTILES.
    """

    mean: npt.NDArray[np.float32]
    samples: npt.NDArray[np.float32]
    sample_mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    quantiles: npt.NDArray[np.float32]


def restore(
    denoise: Callable[..., Tensor],
    images: npt.NDArray[np.float32],
    sigma_n: npt.NDArray[np.floating],
    ids: npt.NDArray[np.int64],
    *,
    samples: int,
    steps: int = 18,
    sigma_min: float = 0.002,
    seed: int = 0,
    batch: int = 256,
    class_labels: Tensor | None = None,
    device: torch.device | str = "cpu",
    noise: NoiseModel = WHITE,
    sweeps: int = 1,
) -> Posterior:
    """Posterior mean and `samples` posterior samples of noisy images [n, C, H, W] with levels sigma_n [n] > 0.

    denoise(x, sigma [B], class_labels) -> D. samples: 0 = the mean alone, else >= 2; the 90 % interval needs 19.
    class_labels: [n, label_dim]. noise: the model of these images, in their order; sweeps: of the Gibbs sampler where
    it is not white, and then the mean needs samples. Costs n (1 + samples (2 steps - 1)) evaluations for white noise,
    else n samples (1 + (sweeps - 1)(steps - 1) + 2 steps - 1). Neither `batch` nor the order or
    company of the images changes what random numbers an image gets. Raises UsageError, and DivergedError where the
    denoiser gives NaN or infinity.
    """
    if samples == 1 or not 0 <= samples <= MAX_SAMPLES:
        raise UsageError(f"samples {samples}: give 0 (the posterior mean alone) or 2 to {MAX_SAMPLES:,}")
    if not noise.white and samples == 0:
        raise UsageError("the posterior mean under noise that is not white is an average over samples: give 2 or more")
    n, shape = len(images), images.shape[1:]
    mean = np.empty((n, *shape), np.float32)
    drawn = np.empty((n * samples, *shape), np.float32)
    total = np.zeros((n, *shape))
    with torch.no_grad():
        for rows in (np.arange(k, min(k + batch, n)) for k in range(0, n if noise.white else 0, batch)):
            y, sigma, labels = _at(rows, images, sigma_n, class_labels, device)
            mean[rows] = denoise(y, sigma, class_labels=labels).to(torch.float32).cpu().numpy()
        for start in range(0, n * samples, batch):
            pairs = np.arange(start, min(start + batch, n * samples))
            rows, numbers = np.divmod(pairs, samples)
            y, sigma, labels = _at(rows, images, sigma_n, class_labels, device)
            keys, which = torch.from_numpy(ids[rows]).to(device), torch.from_numpy(numbers).to(device)

            def of_batch(x: Tensor, level: Tensor, labels: Tensor | None = labels) -> Tensor:
                return denoise(x, level, class_labels=labels)

            if noise.white:
                levels = descent(sigma, steps, sigma_min)
                found = posterior_sample(of_batch, y, levels, keyed_noise(seed, keys, which, shape))
            else:
                found, conditional = split_sample(
                    of_batch,
                    y,
                    noise.at(torch.from_numpy(rows).to(device)),
                    sigma,
                    sweeps=sweeps,
                    steps=steps,
                    sigma_min=sigma_min,
                    draws=functools.partial(keyed_draws, seed, keys, which, shape),
                )
                np.add.at(total, rows, conditional.cpu().numpy())
            drawn[pairs] = found.to(torch.float32).cpu().numpy()
    if not noise.white:
        mean = (total / samples).astype(np.float32)
    for array in (mean, drawn):
        if not np.isfinite(array).all():
            raise DivergedError("the network gives NaN or infinity for some noisy images: it has diverged")
    by_image = drawn.reshape(n, samples, *shape)
    return Posterior(mean, by_image, *summary(by_image))


def summary(
    samples: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """sample mean, standard deviation (unbiased variance) and QUANTILES of samples [n, K, ...]; zeros without samples.

    Quantile p lies at rank p (K + 1), so that a further draw falls between two ranks with exactly the probability that
    they are apart: for K = 19 the 90 % interval is all of the samples (Hyndman & Fan 1996, definition 6).
    """
    n, count, *shape = samples.shape
    if count == 0:
        zeros = np.zeros((n, *shape), np.float32)
        return zeros, zeros, np.zeros((len(QUANTILES), n, *shape), np.float32)
    quantiles = np.quantile(samples, QUANTILES, axis=1, method="weibull")
    wide = samples.astype(np.float64)
    return (
        wide.mean(axis=1).astype(np.float32),
        wide.std(axis=1, ddof=1).astype(np.float32),
        quantiles.astype(np.float32),
    )


def interval_probability(samples: int) -> float:
    """Probability that a further draw falls within the outer QUANTILES of `samples` draws of a continuous law.

    Exact where the ranks are whole numbers (19, 39, ...) or beyond the outermost draws, else for a uniform law.
    """
    low, high = QUANTILES[0] * (samples + 1), QUANTILES[-1] * (samples + 1)
    return (min(high, samples) - max(low, 1.0)) / (samples + 1)


def _at(
    rows: npt.NDArray[np.intp],
    images: npt.NDArray[np.float32],
    sigma_n: npt.NDArray[np.floating],
    class_labels: Tensor | None,
    device: torch.device | str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    y = torch.from_numpy(images[rows]).to(device, torch.float64)
    sigma = torch.from_numpy(np.asarray(sigma_n[rows], np.float64)).to(device)
    return y, sigma, None if class_labels is None else class_labels[torch.from_numpy(rows)].to(device)


def _image(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)
