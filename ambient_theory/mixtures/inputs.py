"""What `HeteroscedasticMixture` accepts: noise for each sample, random states; and the checks of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.bounds import sizes as bounds
from ambient_theory.shared.errors import DataError, UsageError

Floats = NDArray[np.float64]


def resolve_noise(noise_std: ArrayLike | None, noise_level: ArrayLike | None, n: int) -> Floats:
    """Noise of n samples: (1,) for one value, else (n,). None means 1. Raises UsageError as `fit` documents."""
    if noise_std is None:
        if noise_level is not None:
            raise UsageError("noise_level needs noise_std, the standard deviation of each level")
        return np.ones(1)
    s = np.atleast_1d(np.asarray(noise_std, dtype=float))
    if s.ndim != 1:
        raise UsageError(f"noise_std must be a number or one-dimensional, not shape {s.shape}")
    s, _ = bounds.check_levels(s)
    if noise_level is not None:
        level = np.asarray(noise_level)
        if level.shape != (n,) or not np.issubdtype(level.dtype, np.integer):
            raise UsageError(f"noise_level must be {n} whole numbers, one for each sample, not shape {level.shape}")
        if level.min() < 0 or level.max() >= len(s):
            raise UsageError(f"noise_level must lie in 0..{len(s) - 1} for {len(s)} values of noise_std")
        if empty := sorted(set(range(len(s))) - set(np.unique(level).tolist())):
            raise UsageError(f"noise level {empty[0]} (s = {s[empty[0]]:g}) has no sample: leave it out of noise_std")
        return s[level]
    if len(s) not in (1, n):
        raise UsageError(f"noise_std has {len(s)} values for {n} samples: give one, or one for each sample")
    return s


def check_mean_inside(s: Floats, n: ArrayLike, means: Floats, radius: float) -> None:
    precision = np.asarray(n, dtype=float) / s**2
    mean, error = float(precision @ means / precision.sum()), 1 / math.sqrt(precision.sum())
    if abs(mean) > radius + 6 * math.hypot(error, radius * math.sqrt(1 / np.sum(n))):
        raise DataError(
            f"the mean of the data, {mean:.4g}, lies outside the ball of radius R = {radius:g}: "
            "give a larger radius, or None, or centre the data"
        )


def as_generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if random_state is None or isinstance(random_state, int | np.integer):
        return np.random.default_rng(random_state)
    raise UsageError(f"random_state must be an int, a RandomState, a Generator or None, not {random_state!r}")
