"""Weighted points of known noise: what every likelihood reads, from samples or from bins.

Points are (N, r), noise (N,), counts (N,): 1 for a sample, more for a repeated one or for a bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.laws import quantise_levels

Floats = NDArray[np.float64]
BIN_ABOVE = 500
MERGE_UP_TO = 20_000
CHUNK = 1_000_000
FINE_LOG_STEP = 0.02
BINS_PER_SIGMA = 6


@dataclass(frozen=True)
class Points:
    """Weighted points of known noise. x: (N, r); s: (N,) > 0; counts: (N,) >= 0."""

    x: Floats
    s: Floats
    counts: Floats

    @property
    def n(self) -> float:
        return float(self.counts.sum())


def log_sum_exp(rows: Floats) -> Floats:
    """`log sum_j exp(rows_ij)`, (N,), of rows (N, m) that may hold -inf. SciPy's, which serves every kind of array,
    takes several times as long where m is a handful, and fits spend half their time there."""
    top = rows.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(rows - top[:, None]).sum(axis=1)) + top


def log_kernels(points: Points, atoms: Floats) -> Floats:
    """`log N(x_i; a_j, s_i^2 I)`, (N, m)."""
    r = points.x.shape[1]
    if r == 1:
        distance = ((points.x.T - atoms) ** 2).T  # atoms first in memory: sums over a handful of atoms are then fast
    else:
        distance = np.sum((points.x[:, None, :] - atoms) ** 2, axis=-1)
    return -distance / (2 * points.s[:, None] ** 2) - r * np.log(points.s)[:, None] - r / 2 * math.log(2 * math.pi)


def log_density(points: Points, atoms: Floats, weights: Floats) -> Floats:
    """`log sum_j w_j N(x_i; a_j, s_i^2 I)`, (N,)."""
    with np.errstate(divide="ignore"):
        return log_sum_exp(log_kernels(points, atoms) + np.log(weights))


def mean_log_likelihood(points: Points, atoms: Floats, weights: Floats) -> float:
    """Mean over samples of the log density."""
    return float(points.counts @ log_density(points, atoms, weights) / points.n)


def merged(x: Floats, s: Floats, counts: Floats) -> Points:
    """The same samples in a fixed order, equal ones joined, those of count 0 left out: what is computed from them then
    depends neither on their order nor on whether a repetition is written out. x: (n, r); s, counts: (n,)."""
    rows, index = np.unique(np.column_stack([x, s])[counts > 0], axis=0, return_inverse=True)
    return Points(
        np.ascontiguousarray(rows[:, :-1]),
        np.ascontiguousarray(rows[:, -1]),
        np.bincount(index.ravel(), weights=counts[counts > 0]).astype(float),
    )


def line_points(x: Floats, s: Floats, counts: Floats | None = None) -> Points:
    """Points on the line for a likelihood: those of `line_bins`, with the noise that their width adds.

    x: (n,); s: (n,) or (1,). Sheppard's correction: a bin of width h has `s_eff^2 = s^2 + h^2/12`.
    """
    points, width = line_bins(x, s, counts)
    if not width.any():
        return points
    return Points(points.x, np.sqrt(points.s**2 + width**2 / 12), points.counts)


def line_bins(x: Floats, s: Floats, counts: Floats | None = None) -> tuple[Points, Floats]:
    """The samples, or (above 500) bin counts for each noise level, and the width (N,) of each bin, 0 of a sample.

    x: (n,); s: (n,) or (1,). Levels are the distinct s, or steps of 2 % in s where there are many; bins are s/6 wide;
    the samples of a level that would take more than two bins a sample stay as they are.
    """
    one = np.ones(len(x)) if counts is None else counts
    if len(x) <= BIN_ABOVE:
        return Points(x[:, None], np.array(np.broadcast_to(s, len(x))), one), np.zeros(len(x))
    levels, index = _fine_levels(s)
    number = 1 if index is None else len(levels)
    low, high = float(x.min()), float(x.max())
    width = levels / BINS_PER_SIGMA
    size = np.array([len(x)]) if index is None else np.bincount(index, minlength=number)
    cells = np.floor((high - low) / width) + 1
    binned = cells <= 2 * size
    parts: list[Points] = []
    widths: list[Floats] = []
    if not binned.all():
        assert index is not None or number == 1
        chosen = np.ones(len(x), dtype=bool) if index is None else ~binned[index]
        parts.append(Points(x[chosen][:, None], np.array(np.broadcast_to(s, len(x))[chosen]), one[chosen]))
        widths.append(np.zeros(int(chosen.sum())))
    if binned.any():
        offset = np.cumsum(np.where(binned, cells, 0)).astype(np.int64)
        offset, total = np.concatenate([[0], offset[:-1]]), int(offset[-1])
        found = np.zeros(total)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            at, mass = x[part], None if counts is None else counts[part]
            if index is None:
                key = ((at - low) * (1 / width[0])).astype(np.int64)
            else:
                member = index[part]
                key = offset[member] + ((at - low) / width[member]).astype(np.int64)
                if not binned.all():
                    key, mass = key[binned[member]], None if mass is None else mass[binned[member]]
            found += np.bincount(key, weights=mass, minlength=total)
        level = np.repeat(np.arange(number), np.where(binned, cells, 0).astype(np.int64))
        used = np.flatnonzero(found)
        level = level[used]
        centres = low + (used - offset[level] + 0.5) * width[level]
        parts.append(Points(centres[:, None], levels[level], found[used]))
        widths.append(width[level])
    every = Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("x", "s", "counts")))
    return every, np.concatenate(widths)


def _fine_levels(s: Floats) -> tuple[Floats, NDArray[np.int64] | None]:
    """Levels for a likelihood, and each sample's (None: one level)."""
    if s.size == 1 or s.min() == s.max():
        return s[:1], None
    levels, index = quantise_levels(s)
    if np.array_equal(levels[index[:4096]], s[:4096]) and np.array_equal(levels[index], s):
        return levels, index
    key = np.floor(np.log(s) / FINE_LOG_STEP).astype(np.int64)
    key -= key.min()
    used = np.flatnonzero(np.bincount(key))
    place = np.zeros(int(key.max()) + 1, dtype=np.int64)
    place[used] = np.arange(len(used))
    index = place[key]
    return np.sqrt(np.bincount(index, weights=s**2) / np.bincount(index)), index
