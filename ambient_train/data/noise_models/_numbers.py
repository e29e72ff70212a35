"""Numbers that kinds of noise are made of: maps and spectra as they are kept, and drawn counts."""

from __future__ import annotations

import math

import numpy as np

from ambient_theory.shared.errors import DataError

_ALIKE = 1e-4
"""Difference of variances at f and -f, relative to the largest of all, that rounding may leave."""


def smoothed(width: float, shape: tuple[int, int]) -> np.ndarray:
    """Spectrum [H, W//2 + 1] of white noise after a Gaussian filter of standard deviation `width` pixels, mean 1.

    lambda(f) ~ exp(-(2 pi |f| width)^2), f in cycles a pixel: neighbours at distance d have correlation
    exp(-d^2/(4 width^2)).
    """
    height, side = shape
    f2 = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(side)[None, :] ** 2
    return relative_spectrum(np.exp(-((2 * math.pi * width) ** 2) * f2), shape, "the spectrum")


def relative_spectrum(power: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    """float32 [C or 1, H, W//2 + 1] of mean 1 over all frequencies, from [..., H, W] or half of it, of any scale.

    A whole plane must be that of real noise, equal at f and -f. Raises DataError naming `where` for other shapes,
    values that are not finite or negative, and a spectrum that is 0.
    """
    height, width = shape
    half = width // 2 + 1
    wide = np.asarray(power, np.float64)
    wide = wide[None] if wide.ndim == 2 else wide
    if wide.ndim != 3 or wide.shape[1] != height or wide.shape[2] not in (width, half):
        raise DataError(
            f"{where}: a spectrum of shape {np.asarray(power).shape} for images of {width} x {height}; it must be "
            f"[{height}, {half}] as numpy.fft.rfft2 has it, or [{height}, {width}], a channel first where they differ"
        )
    if not (np.isfinite(wide).all() and (wide >= 0).all() and wide.any()):
        raise DataError(f"{where}: a spectrum holds variances: finite, >= 0, and not 0 everywhere")
    whole = wide.shape[2] == width and width != half
    own = wide if whole else wide[:, :, [0] if width % 2 else [0, half - 1]]  # columns that hold both f and -f
    opposite = np.roll(own[:, ::-1, ::-1] if whole else own[:, ::-1], 1, axis=(1, 2) if whole else 1)
    if np.abs(own - opposite).max() > _ALIKE * wide.max():
        raise DataError(f"{where}: a spectrum of real noise is the same at f and -f, this one is not")
    wide = wide[:, :, :half]
    weights = np.full(half, 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    mean = (wide * weights).sum(axis=(1, 2), keepdims=True) / (height * width)
    if not (mean > 0).all():
        raise DataError(f"{where}: the spectrum of a channel is 0 everywhere")
    return (wide / mean.mean()).astype(np.float32)


def relative_map(deviation: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(w float32 [N, C, H, W], sigma_n float32 [N]) of maps of standard deviations [N, C, H, W].

    A map that is 0 in every pixel is a clean image, w = 1. Raises DataError naming `where` for a pixel without finite
    positive noise: what is missing has no level, and what is exact leaves no level at which the image could be used.
    """
    wide = np.asarray(deviation, np.float64)
    flat = wide.reshape(len(wide), -1)
    clean = (flat == 0).all(axis=1)
    bad = ~(np.isfinite(flat) & (flat > 0))
    bad[clean] = False
    if bad.any():
        row, pixel = np.argwhere(bad)[0]
        raise DataError(
            f"{where}: {int(bad.sum()):,} pixels have no finite positive noise, one of image {row} has "
            f"{flat[row, pixel]:g}: a missing pixel has no noise level; fill them, or leave such images out"
        )
    level = np.sqrt((flat**2).mean(axis=1))
    with np.errstate(over="ignore"):
        sigma = level.astype(np.float32)
    if not np.isfinite(sigma).all():
        raise DataError(f"{where}: noise levels beyond what 32-bit floats hold")
    level[clean] = 1.0
    pattern = (wide / level.reshape(-1, 1, 1, 1)).astype(np.float32)
    pattern[clean] = 1.0
    return pattern, sigma


def add_counts(x: np.ndarray, ids: np.ndarray, seed: int, gain: float, read: float) -> np.ndarray:
    """v' float32 of images x [n, C, H, W]: a function of (seed, id) alone, by the inverse of the Poisson law."""
    import torch
    from scipy.special import pdtrik

    from ambient_train import stateless

    keys, size = torch.from_numpy(ids), math.prod(x.shape[1:])
    u = stateless.uniform(seed, "counts", keys, size).numpy().reshape(x.shape)
    z = stateless.normal(seed, "read-noise", keys, x.shape[1:], torch.float64).numpy()
    mean = np.maximum(x.astype(np.float64) + 1, 0) / gain
    photons = np.ceil(np.nan_to_num(pdtrik(u, np.maximum(mean, 1e-300)), nan=0.0))  # the least k with P(K <= k) >= u
    photons = np.where(u <= np.exp(-mean), 0.0, photons)
    return (gain * photons + read * z).astype(np.float32)
