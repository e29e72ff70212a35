"""Exact area averaging, and the crops that make an image square.

Shrinking n pixels to m by area: output cell j is the mean of the input over [j n/m, (j + 1) n/m). In units of 1/m of an
input pixel all overlaps are whole numbers, so the sums of uint8 images are exact integers and the rounded result is
the same on every machine and with every linear algebra library.
"""

from __future__ import annotations

import math

import numpy as np

from ambient_theory.shared.errors import UsageError

_EXACT_FLOAT32 = 2**24


def area_weights(n_in: int, n_out: int) -> tuple[np.ndarray, int]:
    """Whole-number overlaps A [n_out, n_in] and their row sum s: the area average along one axis is A x / s."""
    if n_in < 1 or n_out < 1:
        raise UsageError(f"cannot resize {n_in} pixels to {n_out}: both must be at least 1")
    common = math.gcd(n_in, n_out)
    pixel, cell = n_out // common, n_in // common
    left = np.arange(n_out)[:, None] * cell
    start = np.arange(n_in)[None, :] * pixel
    overlap = np.minimum(left + cell, start + pixel) - np.maximum(left, start)
    return np.maximum(overlap, 0), cell


def area_resize(images: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """Area average of images [..., H, W] to [..., height, width]; uint8 is rounded (half to even), else float32."""
    width = height if width is None else width
    if images.shape[-2:] == (height, width):
        return images
    rows, row_sum = area_weights(images.shape[-2], height)
    columns, column_sum = area_weights(images.shape[-1], width)
    whole = images.dtype == np.uint8
    exact = whole and 255 * row_sum * column_sum < _EXACT_FLOAT32
    dtype = np.float32 if exact else np.float64
    rows, columns = rows.astype(dtype), columns.T.astype(dtype)
    out = np.empty((*images.shape[:-2], height, width), np.uint8 if whole else np.float32)
    flat_in, flat_out = images.reshape(-1, *images.shape[-2:]), out.reshape(-1, height, width)
    chunk = max(1, 2**22 // max(1, images.shape[-1] * images.shape[-2]))
    for start in range(0, len(flat_in), chunk):
        part = rows @ (flat_in[start : start + chunk].astype(dtype) @ columns)
        mean = part.astype(np.float64) / (row_sum * column_sum)
        flat_out[start : start + chunk] = np.rint(mean) if whole else mean
    return out
