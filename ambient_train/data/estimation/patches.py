"""Patches as coefficients of white noise: orthonormal, so that noise of standard deviation s gives each of them that s.

A patch [C, p, p] is written in the cosine basis over colours, rows and columns. A smooth patch has little in most of
them; how much its own energy is, and which coefficients are quiet, tells noise from image.
"""

from __future__ import annotations

import functools

import numpy as np

Array = np.ndarray


@functools.lru_cache(maxsize=32)
def basis(channels: int, side: int) -> Array:
    """Orthonormal cosine basis [K, C, p, p] with K = C p^2, the constant of each colour among them."""
    colours, lines = _cosines(channels), _cosines(side)
    return np.einsum("ac,ux,vy->auvcxy", colours, lines, lines).reshape(-1, channels, side, side)


def _cosines(n: int) -> Array:
    """DCT-II, orthonormal [n, n]: row k is cos(pi k (2 i + 1)/(2 n))."""
    k, i = np.mgrid[:n, :n]
    rows = np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(2 / n)
    rows[0] = 1 / np.sqrt(n)
    return rows


def coefficients(pixels: Array, side: int) -> tuple[Array, Array]:
    """(coefficients [N, P, K] of patches half a side apart, least and largest pixel [N, P, 2] of each)."""
    step = max(1, side // 2)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(2, 3))[:, :, ::step, ::step]
    n, c = pixels.shape[:2]
    flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, -1, c * side * side)
    return flat @ basis(c, side).reshape(-1, c * side * side).T, np.stack([flat.min(-1), flat.max(-1)], -1)


def fine(channels: int, shape: tuple[int, int], order: int) -> tuple[int, Array]:
    """(side, coefficients) that a smooth image hardly has: u + v >= order in the largest patches of which four fit
    along each side; of 2 x 2 pixels where the image is too small, and then all but the constant."""
    side = next((s for s in (6, 4, 3) if min(shape) >= 4 * s), 2)
    u, v = np.mgrid[:side, :side]
    least = order if side > 2 else 1
    return side, np.flatnonzero(np.tile((u + v >= least).reshape(-1), channels))


def lags(channels: int, side: int) -> Array:
    """A [K, 2] with E[(b_k . n)^2] = s^2 (1 + A_k . rho) for noise of correlation rho = (down, across) at lag 1."""
    b = basis(channels, side)
    down = 2 * (b[:, :, 1:] * b[:, :, :-1]).sum((1, 2, 3))
    across = 2 * (b[:, :, :, 1:] * b[:, :, :, :-1]).sum((1, 2, 3))
    return np.stack([down, across], -1)
