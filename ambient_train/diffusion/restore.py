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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train import stateless
from ambient_train.diffusion.sampling import Denoiser

MAX_SAMPLES = 2**16
QUANTILES = (0.05, 0.5, 0.95)
_LOWER = 4.0
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


def keyed_noise(seed: int, ids: Tensor, numbers: Tensor, shape: tuple[int, ...]) -> Noise:
    """Noise of sample `numbers` [B] of the images `ids` [B]: a function of (seed, step, image id, number) alone."""
    index = (ids.to(torch.int64) << _KEY_BITS) | numbers.to(torch.int64)

    def noise(i: int) -> tuple[Tensor, Tensor]:
        return (
            stateless.normal(seed, f"restore-{i}", index, shape),
            stateless.normal(seed, f"restore-within-{i}", index, shape),
        )

    return noise


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of n restored images, float32 in units of [-1, 1].

    mean: D(y, sigma_n), [n, C, H, W]. samples: [n, K, C, H, W]. Of the samples, per pixel: sample_mean, std, and
    quantiles [3, n, C, H, W] at QUANTILES.
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
) -> Posterior:
    """Posterior mean and `samples` posterior samples of noisy images [n, C, H, W] with levels sigma_n [n] > 0.

    denoise(x, sigma [B], class_labels) -> D. samples: 0 = the mean alone, else >= 2; the 90 % interval needs 19.
    class_labels: [n, label_dim]. Costs n (1 + samples (2 steps - 1)) evaluations. Neither `batch` nor the order or
    company of the images changes what random numbers an image gets. Raises UsageError, and DivergedError where the
    denoiser gives NaN or infinity.
    """
    if samples == 1 or not 0 <= samples <= MAX_SAMPLES:
        raise UsageError(f"samples {samples}: give 0 (the posterior mean alone) or 2 to {MAX_SAMPLES:,}")
    n, shape = len(images), images.shape[1:]
    mean = np.empty((n, *shape), np.float32)
    drawn = np.empty((n * samples, *shape), np.float32)
    with torch.no_grad():
        for rows in (np.arange(k, min(k + batch, n)) for k in range(0, n, batch)):
            y, sigma, labels = _at(rows, images, sigma_n, class_labels, device)
            mean[rows] = denoise(y, sigma, class_labels=labels).to(torch.float32).cpu().numpy()
        for start in range(0, n * samples, batch):
            pairs = np.arange(start, min(start + batch, n * samples))
            rows, numbers = np.divmod(pairs, samples)
            y, sigma, labels = _at(rows, images, sigma_n, class_labels, device)
            keys, which = torch.from_numpy(ids[rows]).to(device), torch.from_numpy(numbers).to(device)

            def of_batch(x: Tensor, level: Tensor, labels: Tensor | None = labels) -> Tensor:
                return denoise(x, level, class_labels=labels)

            found = posterior_sample(
                of_batch, y, descent(sigma, steps, sigma_min), keyed_noise(seed, keys, which, shape)
            )
            drawn[pairs] = found.to(torch.float32).cpu().numpy()
    for array in (mean, drawn):
        if not np.isfinite(array).all():
            raise DivergedError("the network gives NaN or infinity for some noisy images: it has diverged")
    by_image = drawn.reshape(n, samples, *shape)
    return Posterior(mean, by_image, *_summary(by_image))


def _summary(samples: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
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
