"""Draws for the simulator: what an estimator needs of n samples, for many replicates.

* `binned`: multinomial bin counts. Exact up to the width h of a bin, whose effect on moments Sheppard's correction
  removes (`s_eff^2 = s^2 + h^2/12`). n = 1e15 costs what 1e4 does.
* `exact`: real samples, in chunks; the check of the binned engine.
* `wishart` (in d dimensions): see `ambient_theory.simulation.wishart`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.mixtures.moments import LevelMoments, hermite
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
MOST_SAMPLES = 2**62
MOST_BINS = 100_000


@dataclass(frozen=True)
class BinnedLevel:
    """Bin counts of one noise level. s: effective noise (Sheppard); centres: (B,); counts: (reps, B)."""

    s: float
    centres: Floats
    counts: NDArray[np.int64]

    @property
    def n(self) -> Floats:
        return self.counts.sum(axis=-1).astype(float)


def bin_edges(radius: float, s: float, bins: int = 500, centre: float = 0.0) -> Floats:
    """Edges of `bins` or more on [centre - R - 8s, centre + R + 8s]: outside lies less than 1e-15 of the probability.
    None is wider than s/2, where Sheppard's correction starts to fail (its error is about `2 exp(-2 pi^2 s^2/h^2)`,
    1e-34 at h = s/2).

    Raises UsageError where that takes more than `MOST_BINS`.
    """
    half = radius + 8 * s
    need = 4 * half / s
    if need > MOST_BINS:
        raise UsageError(
            f"noise of s = {s:.3g} in a ball of radius R = {radius:.3g} takes {need:.2g} bins: give --radius in the "
            "unit of the noise, or draw samples with --engine exact"
        )
    return np.linspace(centre - half, centre + half, max(bins, int(np.ceil(need))) + 1)


def draw_binned(
    laws: Sequence[tuple[AtomicLaw, int]],
    s: Floats,
    n: Sequence[int],
    radius: float,
    rng: np.random.Generator,
    bins: int = 500,
) -> list[BinnedLevel]:
    """Bin counts of every level. laws: (law, replicates) pairs, one block of replicates each; s, n: (L,)."""
    levels = []
    for sigma, size in zip(s, n, strict=True):
        if size > MOST_SAMPLES:
            raise UsageError(f"n = {size:.3g} samples of one level: at most {MOST_SAMPLES:.3g} can be counted")
        edges = bin_edges(radius, float(sigma), bins)
        h = edges[1] - edges[0]
        blocks = [
            rng.multinomial(size, law.bin_probabilities(edges, float(sigma)), size=reps) for law, reps in laws if reps
        ]
        centres = (edges[1:] + edges[:-1]) / 2
        levels.append(BinnedLevel(float(np.sqrt(sigma**2 + h**2 / 12)), centres, np.concatenate(blocks)))
    return levels


def binned_moments(levels: Sequence[BinnedLevel], order: int) -> LevelMoments:
    """Unbiased moments 1..J of every level and replicate, from bin counts."""
    means = []
    for level in levels:
        sums = level.counts @ hermite(level.centres, level.s, order).T
        means.append(sums / np.maximum(level.n, 1)[:, None])
    return LevelMoments(
        np.array([level.s for level in levels]), np.stack([level.n for level in levels], axis=-1), np.stack(means, 1)
    )


def exact_moments(
    laws: Sequence[tuple[AtomicLaw, int]],
    s: Floats,
    n: Sequence[int],
    order: int,
    rng: np.random.Generator,
    chunk: int = 1_000_000,
) -> LevelMoments:
    """The same from real samples, at a cost of reps x n; memory for `chunk` samples."""
    reps = sum(count for _, count in laws)
    means = np.zeros((reps, len(s), order))
    row = 0
    for law, count in laws:
        for _ in range(count):
            for level, (sigma, size) in enumerate(zip(s, n, strict=True)):
                left = int(size)
                while left:
                    x = law.sample(np.full(min(left, chunk), sigma), rng)[:, 0]
                    means[row, level] += hermite(x, sigma, order).sum(axis=-1)
                    left -= len(x)
            row += 1
    sizes = np.asarray(n, dtype=float)
    return LevelMoments(np.asarray(s, dtype=float), sizes, means / np.maximum(sizes, 1)[:, None])
