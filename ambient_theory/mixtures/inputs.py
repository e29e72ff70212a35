"""What `HeteroscedasticMixture` accepts: noise for each sample, random states; and the checks of both."""

from __future__ import annotations

import math
from types import MethodType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.bounds import sizes as bounds
from ambient_theory.shared.errors import DataError, UsageError

Floats = NDArray[np.float64]


def resolve_noise(
    noise_std: ArrayLike | None,
    noise_level: ArrayLike | None,
    n: int,
    *,
    common: float | None = None,
    positional: Any = None,
) -> Floats:
    """Noise of n samples: (1,) for one value, else (n,).

    noise_std: a number, (n,), (n, 1), or, with noise_level (n,) of indices, (L,). common: what counts without
    noise_std. positional: the `y` of scikit-learn's signature, looked at only to say that it is no noise. Raises
    UsageError as `HeteroscedasticMixture.fit` documents.
    """
    if noise_std is None:
        if noise_level is not None:
            raise UsageError("noise_level needs noise_std, the standard deviation of each level")
        if common is None:
            raise UsageError(_missing(positional is not None))
        noise_std = common
    s = _as_numbers(noise_std)
    s, _ = bounds.check_levels(s)
    if noise_level is not None:
        level = np.asarray(noise_level)
        level = level[:, 0] if level.ndim == 2 and level.shape[1] == 1 else level
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


def _as_numbers(noise_std: ArrayLike) -> Floats:
    """(m,) of a number, a sequence, a column or a frame of one column."""
    try:
        s = np.atleast_1d(np.asarray(noise_std, dtype=float))
    except (TypeError, ValueError):
        raise UsageError("noise_std must hold numbers: the standard deviation of each sample's noise") from None
    s = s[:, 0] if s.ndim == 2 and s.shape[1] == 1 else s
    if s.ndim != 1:
        raise UsageError(f"noise_std must be a number, one-dimensional or a single column, not shape {s.shape}")
    return s


def _missing(given_as_y: bool) -> str:
    words = "noise_std is required: the standard deviation of each sample's noise, by its name, as in "
    words += "fit(X, noise_std=s) and score(X, noise_std=s); HeteroscedasticMixture(common_noise=1.0) fixes one for all"
    if given_as_y:
        return words + ". The second argument by position is y, labels, which are ignored: noise does not go there"
    return words


class Scored:
    """A method `score` that model selection may call only where the noise can reach it.

    `GridSearchCV` and `cross_val_score` look for `score` on an estimator that is not fitted, and turn what it raises
    later into NaN. So the look itself is refused where scikit-learn would not pass noise_std on: no metadata routing,
    and no common noise. On the class it is the plain function, whose arguments scikit-learn reads.
    """

    def __init__(self, function: Any):
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self.function
        if instance.common_noise is None and not hasattr(instance, "means_"):
            from sklearn import get_config

            if not get_config()["enable_metadata_routing"]:
                raise UsageError(
                    "score needs a fitted HeteroscedasticMixture. In model selection the noise must reach score as "
                    "well as fit: sklearn.set_config(enable_metadata_routing=True), then "
                    "HeteroscedasticMixture(...).set_fit_request(noise_std=True).set_score_request(noise_std=True)"
                )
        return MethodType(self.function, instance)


def check_mean_inside(s: Floats, n: ArrayLike, means: Floats, radius: float) -> None:
    precision = np.asarray(n, dtype=float) / s**2
    mean, error = float(precision @ means / precision.sum()), 1 / math.sqrt(precision.sum())
    if abs(mean) > radius + 6 * math.hypot(error, radius * math.sqrt(1 / np.sum(n))):
        raise DataError(
            f"the mean of the data, {mean:.4g}, lies outside the ball of radius R = {radius:g}: "
            "give a larger radius, or None, or centre the data"
        )


def as_counts(sample_weight: ArrayLike | None, n: int) -> Floats | None:
    """Weights (n,) >= 0 of n samples, or None for one each. Raises UsageError."""
    if sample_weight is None:
        return None
    try:
        w = np.asarray(sample_weight, dtype=float)
    except (TypeError, ValueError):
        raise UsageError("sample_weight must hold numbers, one for each sample") from None
    w = np.full(n, float(w)) if w.ndim == 0 else w[:, 0] if w.ndim == 2 and w.shape[1] == 1 else w
    if w.shape != (n,):
        raise UsageError(f"sample_weight must have one weight for each of the {n} samples, not shape {w.shape}")
    if not np.all(np.isfinite(w) & (w >= 0)):
        raise UsageError("every sample_weight must be finite and >= 0")
    if w.sum() <= 0:
        raise UsageError("every sample weight is zero: no sample is left")
    return w


def as_generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if random_state is None or isinstance(random_state, int | np.integer):
        return np.random.default_rng(random_state)
    raise UsageError(f"random_state must be an int, a RandomState, a Generator or None, not {random_state!r}")
