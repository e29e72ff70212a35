"""Patches as coefficients of white noise: orthonormal, so that noise of standard deviation s gives each of them that s.

A patch [C, p, p] is written in the cosine basis over colours, rows and columns. A smooth patch has little in most of
them; how much its own energy is, and which coefficients are quiet, tells noise from image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

Array = np.ndarray
_BLOCK = 2**20
"""Coefficients that are worked on at once, of several images or of one."""


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


def step_of(side: int) -> int:
    """Pixels from one patch to the next: half a side."""
    return max(1, side // 2)


def patches_in(shape: tuple[int, ...], side: int) -> int:
    """P of an image (C, H, W)."""
    down, across = ((n - side) // step_of(side) + 1 for n in shape[-2:])
    return down * across


def blocks(images: Array, numbers: int) -> Iterator[Array]:
    """The images [N, ...] some at a time, as many as `numbers` of each fill a block; one at least."""
    size = max(1, _BLOCK // max(numbers, 1))
    return (images[start : start + size] for start in range(0, len(images), size))


def coefficients(pixels: Array, side: int) -> tuple[Array, Array]:
    """(coefficients [N, P, K] float64 of patches half a side apart, least and largest pixel [N, P, 2] of each)."""
    step, (n, c), size = step_of(side), pixels.shape[:2], pixels.shape[1] * side * side
    values = np.empty((n, patches_in(pixels.shape, side), size))
    ends = np.empty((*values.shape[:2], 2))
    into, start = basis(c, side).reshape(-1, size).T, 0
    for block in blocks(pixels, values.shape[1] * size):
        windows = np.lib.stride_tricks.sliding_window_view(block, (side, side), axis=(2, 3))[:, :, ::step, ::step]
        flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(block), -1, size).astype(np.float64, copy=False)
        rows = slice(start, start := start + len(block))
        np.matmul(flat, into, out=values[rows])
        ends[rows] = np.stack([flat.min(-1), flat.max(-1)], -1)
    return values, ends


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
