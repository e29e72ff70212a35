"""Noise that is not known, or stated wrongly: the likelihood of a common factor c on every standard deviation.

    X_i = Y_i + c s_i Z_i,      l(c) = max over laws of k atoms of sum_i log f(x_i; c s_i),

c estimated where l is largest, with the likelihood interval `2 (l_max - l(c)) <= q`, q the chi-square quantile of one
degree of freedom. With s_i = 1 it is one common unknown sigma. k atoms under Gaussian noise of a common unknown size
are identifiable for every finite k: noise is what no law of k atoms can imitate. They are so weakly where atoms are
closer than the noise, since k atoms imitate wider noise up to 2k - 1 moments: sigma is then known to about n^(-1/2k)
(Wu and Yang, arXiv 1807.07237), the profile is nearly flat towards smaller noise, and with more atoms than there are
the chi-square quantile is not the right one. Among all laws (npmle) nothing is identified: any smaller noise fits.

In d dimensions the likelihood is taken in the subspace of the atoms, and the noise outside it adds a chi-square with
the n - k samples that are left once k atoms have been placed (restricted likelihood; with n the estimate would be too
small by k/2n, which is not small beside its error 1/sqrt(2nd)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import chdtrc
from sklearn.utils.validation import validate_data

from ambient_theory.mixtures.fitting import Found, best_of_starts
from ambient_theory.mixtures.inference import Uncertainty, check_level, likelihood_region, one_number_quantile
from ambient_theory.mixtures.inputs import as_generator, resolve_noise
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.mixtures.likelihood import plus_plus_start
from ambient_theory.mixtures.points import Points, line_bins, mean_log_likelihood, merged
from ambient_theory.mixtures.subspace import Subspace, weighted_subspace
from ambient_theory.mixtures.w1 import w1
from ambient_theory.shared.errors import DataError, UsageError

if TYPE_CHECKING:
    from ambient_theory.mixtures.estimators import HeteroscedasticMixture

Floats = NDArray[np.float64]
GRID = 12
STEP = 0.01
"""Of log s on both sides, for the sensitivity."""
SLICES = 4
"""Of c on each side of its estimate, at which the intervals of atoms and weights are looked at."""
FLAT = 2.0
"""An interval that spans this factor is called nearly flat."""


@dataclass(frozen=True)
class NoiseScale:
    """scale: the factor c on the stated noise, or, where none was stated (`known` False), the common sigma itself; low,
    high: its interval of this level, 0 or infinite where the likelihood does not fall below the quantile; p: of c = 1
    (NaN where nothing was stated). sensitivity: dW1 / d log s of the fitted law at c; reach: the largest W1 from the
    law at c to those at finite ends of the interval. at: (G,) factors, and drop: (G,) `2 (l_max - l)` there, the
    profile. atoms: (k, d) and weights: (k,) at c; uncertainty: their likelihood intervals with c as unknown as they are
    (its standard errors are half the intervals over the normal quantile), where it was asked for."""

    scale: float
    low: float
    high: float
    level: float
    known: bool
    p: float
    sensitivity: float
    reach: float
    at: Floats
    drop: Floats
    atoms: Floats
    weights: Floats
    uncertainty: Uncertainty | None = None

    @property
    def rejected(self) -> bool:
        """Whether the stated noise lies outside the interval."""
        return self.known and not self.low <= 1 <= self.high

    @property
    def flat(self) -> bool:
        """Whether the samples hardly tell how large the noise is."""
        return not (self.low > 0 and math.isfinite(self.high) and self.high < FLAT * self.low)

    @property
    def relative_error(self) -> float:
        """Standard error of log c: half its interval over the normal quantile; infinite where an end is open."""
        if not (self.low > 0 and math.isfinite(self.high)):
            return math.inf
        return math.log(self.high / self.low) / (2 * math.sqrt(one_number_quantile(self.level)))

    def sentence(self) -> str:
        """What it says, in words."""
        what = "the stated noise times" if self.known else "the common noise is"
        words = f"{what} {self.scale:.4g} ({100 * self.level:g} %: {self.low:.4g} to {self.high:.4g})"
        if self.known:
            words += f", p of the stated noise {self.p:.2g}"
        if self.flat:
            words += "; the profile is nearly flat: atoms this close cannot be told from noise of another size"
        return words

    def to_dict(self) -> dict[str, Any]:
        """JSON types (infinite and NaN as floats)."""
        kept = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "uncertainty"}
        values = {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in kept.items()}
        return {**values, "rejected": self.rejected, "nearly_flat": self.flat}


def noise_scale(
    model: HeteroscedasticMixture,
    X: ArrayLike,
    noise_std: ArrayLike | None = None,
    *,
    level: float = 0.9,
    intervals: bool = False,
    random_state: Any = 0,
) -> NoiseScale:
    """The factor on the noise of samples X (n, d), with the number of atoms, radius and starts of `model` (which need
    not be fitted). noise_std: as in `fit`; None: one for all, not known. intervals: also those of atoms and weights, on
    the line.

    Raises UsageError for `npmle` and for intervals in d dimensions, DataError where there are no more distinct samples
    than atoms.
    """
    if intervals and np.ndim(X) == 2 and np.shape(X)[1] > 1:
        raise UsageError("intervals that allow for unknown noise are for the line: leave intervals out")
    profile = noise_profile(model, X, noise_std, level=level, random_state=random_state)
    return profile.with_intervals() if intervals else profile.scale


@dataclass(frozen=True)
class NoiseProfile:
    """What `noise_scale` answers, with the likelihood it was read off: intervals can be asked for later, without
    profiling again."""

    scale: NoiseScale
    profile: _Profile
    best: float

    def with_intervals(self) -> NoiseScale:
        """The scale with likelihood intervals of atoms and weights, on the line."""
        return replace(self.scale, uncertainty=_region(self.profile, self.best, self.scale))


def noise_profile(
    model: HeteroscedasticMixture,
    X: ArrayLike,
    noise_std: ArrayLike | None = None,
    *,
    level: float = 0.9,
    random_state: Any = 0,
) -> NoiseProfile:
    """`noise_scale`, with its profile kept."""
    model._check_parameters()
    if model.method == "npmle":
        raise UsageError("among all laws any smaller noise fits: method 'npmle' has no noise scale; choose another")
    check_level(level)
    x = validate_data(model, X, dtype=np.float64, ensure_min_samples=1)
    s = np.array(np.broadcast_to(resolve_noise(1.0 if noise_std is None else noise_std, None, len(x)), len(x)))
    if len(np.unique(x, axis=0)) <= model.n_components:
        raise DataError(
            f"with k = {model.n_components} an atom goes through every one of the samples, and no noise is left to be "
            "measured: fewer atoms, or more samples"
        )
    rng = as_generator(random_state)
    profile = _Profile(model, x, s, 1.0, rng)
    best = profile.maximum()
    if x.shape[1] > 1 and model.n_components > 1:  # once more in the subspace that noise of this size shows
        profile = _Profile(model, x, s, math.exp(best), rng)
        best = profile.maximum()
    return NoiseProfile(_read_off(profile, best, level, noise_std is not None), profile, best)


class _Profile:
    """l(c) with its maximiser, remembered: each new c starts from its neighbours' laws, the grid from k-means++ too."""

    def __init__(self, model: HeteroscedasticMixture, x: Floats, s: Floats, at: float, rng: np.random.Generator):
        self.asked = replace(model._asked(), method="mle")
        self.k, self.rng, (self.n, self.d) = self.asked.k, rng, x.shape
        rank = min(self.k - 1, self.d)
        self.space: Subspace | None = None
        inside, self.left, self.rest = x, 0, 0.0
        precision = s**-2.0
        if rank < self.d and self.d > 1:
            self.space = weighted_subspace(x, at * s, min(rank, self.n - 1), rng)
            inside = self.space.project(x)
            outside = x - self.space.centre
            outside = outside - (outside @ self.space.basis) @ self.space.basis.T
            self.left = max(self.n - self.k, 1) * (self.d - self.space.basis.shape[1])
            self.rest = float(np.sum(precision * np.sum(outside**2, axis=1)))
        self.low_x, self.high_x = inside.min(axis=0, initial=0), inside.max(axis=0, initial=0)
        if inside.shape[1]:
            self.low_x, self.high_x = inside.min(axis=0), inside.max(axis=0)
        if self.asked.radius is not None:
            self.low_x = np.full(inside.shape[1], -self.asked.radius)
            self.high_x = -self.low_x
        self.found: dict[float, tuple[float, Found]] = {}
        self.low, self.high = self._range(inside, s, precision)
        if inside.shape[1] == 1:
            self.points, self.width = line_bins(inside[:, 0], math.exp(self.low) * s)
            self.points = Points(self.points.x, self.points.s / math.exp(self.low), self.points.counts)
        else:
            self.points = merged(inside, s, np.ones(self.n)) if inside.shape[1] else Points(inside, s, np.ones(self.n))
            self.width = np.zeros(len(self.points.x))

    def _range(self, inside: Floats, s: Floats, precision: Floats) -> tuple[float, float]:
        """log c between a quarter of what is left around k-means++ seeds and half more than all spread (of a handful of
        samples much more, as far as the interval of a variance reaches)."""
        every = np.sum(precision * np.sum((inside - precision @ inside / precision.sum()) ** 2, axis=1)) + self.rest
        least = every
        if self.k > 1 and inside.shape[1]:
            for _ in range(4):
                atoms, _ = plus_plus_start(Points(inside, s, np.ones(self.n)), self.k, self.rng)
                nearest = np.min(np.sum((inside[:, None, :] - atoms) ** 2, axis=2), axis=1)
                least = min(least, float(precision @ nearest) + self.rest)
        size = self.n * self.d
        low = math.log(math.sqrt(max(least, 1e-12 * every) / size) / 4)
        return low, math.log(1.5 * math.sqrt(every / size)) + 6 / size

    def __call__(self, log_c: float, n_init: int = 0) -> float:
        """l(c)."""
        key = float(log_c)
        if key not in self.found:
            c = math.exp(key)
            value = -self.left * key - self.rest / (2 * c**2)
            if not self.points.x.shape[1]:
                found = Found(np.zeros((1, 0)), np.ones(1), True, 1, "mle")
            else:
                points = self.points_at(key)
                near = sorted(self.found, key=lambda other: abs(other - key))[:2]
                starts = [(self.found[other][1].atoms, self.found[other][1].weights) for other in near]
                asked = replace(self.asked, n_init=n_init if near else max(n_init, self.asked.n_init))
                found = best_of_starts(points, starts, self.low_x, self.high_x, asked, self.rng)
                value += self.n * mean_log_likelihood(points, found.atoms, found.weights)
            self.found[key] = (value, found)
        return self.found[key][0]

    def points_at(self, log_c: float) -> Points:
        """The points under noise of this factor, that of the bins added."""
        noise = np.sqrt((math.exp(log_c) * self.points.s) ** 2 + self.width**2 / 12)
        return Points(self.points.x, noise, self.points.counts)

    def maximum(self) -> float:
        """log c of the maximum: the best two of a grid, falling from wide noise, then Brent between its neighbours."""
        grid = np.linspace(self.low, self.high, GRID)[::-1]
        values = np.array([self(g, 1) for g in grid])
        exact = 0.02 / math.sqrt(2 * self.n * self.d)
        padded = np.concatenate([[-np.inf], values, [-np.inf]])
        peaks = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
        for peak in peaks[np.argsort(values[peaks])[::-1][:2]]:
            ends = grid[min(peak + 1, GRID - 1)], grid[max(peak - 1, 0)]
            minimize_scalar(lambda g: -self(g), bounds=ends, method="bounded", options={"xatol": exact})
        return max(self.found, key=lambda g: self.found[g][0])

    def law(self, log_c: float) -> AtomicLaw:
        self(log_c)
        found = self.found[log_c][1]
        atoms = found.atoms if self.space is None else self.space.lift(found.atoms)
        order = np.argsort(atoms[:, 0], kind="stable")
        return AtomicLaw(atoms[order], found.weights[order] / found.weights.sum())

    def end(self, best: float, drop: float, side: int) -> float:
        """log c where l falls by `drop` below its maximum, outermost of all that was looked at; infinite if nowhere."""
        least = self.found[best][0] - drop
        outward = sorted((g for g in self.found if side * (g - best) >= 0), key=lambda g: side * g)
        inside = max(i for i, g in enumerate(outward) if self.found[g][0] >= least)
        if inside + 1 == len(outward):
            return side * math.inf
        a, b = outward[inside], outward[inside + 1]
        exact = 0.02 / math.sqrt(2 * self.n * self.d)
        return float(brentq(lambda g: self(g) - least, a, b, xtol=exact))


def _read_off(profile: _Profile, best: float, level: float, known: bool) -> NoiseScale:
    q = one_number_quantile(level)
    ends = [profile.end(best, q / 2, side) for side in (-1, 1)]
    stated = profile(0.0, profile.asked.n_init) if known else math.nan
    top = max(value for value, _ in profile.found.values())
    law = profile.law(best)
    near = [profile.law(best + side * STEP) for side in (-1, 1)]
    reach = [w1(law, profile.law(end)) for end in ends if math.isfinite(end)]
    at = np.array(sorted(profile.found))
    return NoiseScale(
        math.exp(best),
        math.exp(ends[0]),
        math.exp(ends[1]),
        level,
        known,
        float(chdtrc(1, 2 * max(top - stated, 0.0))) if known else math.nan,
        w1(*near) / (2 * STEP),
        max(reach, default=math.nan),
        np.exp(at),
        np.array([2 * (top - profile.found[g][0]) for g in at]),
        law.atoms,
        law.weights,
    )


def _region(profile: _Profile, best: float, found: NoiseScale) -> Uncertainty:
    """All atoms and weights with `2 (l_max - l) <= q` at any c: the union, over c in its interval, of the regions at
    that c with what its own drop leaves of q."""
    q, top = one_number_quantile(found.level), profile.found[best][0]
    outer = [
        math.log(e) if 0 < e < math.inf else edge for e, edge in ((found.low, profile.low), (found.high, profile.high))
    ]
    at = [*np.linspace(outer[0], best, SLICES + 1)[:-1], best, *np.linspace(best, outer[1], SLICES + 1)[1:]]
    low, high = float(profile.low_x[0]), float(profile.high_x[0])
    k, ends = profile.k, []
    for log_c in at:
        law, left = profile.law(float(log_c)), q - 2 * (top - profile(float(log_c)))
        law_at = np.concatenate([law.line(), law.weights])
        ends.append(np.stack([law_at, law_at], axis=1))
        if left > 1e-3 * q and k == 1:
            points = profile.points_at(float(log_c))
            half = math.sqrt(left / float(np.sum(points.counts / points.s**2)))
            ends.append(np.array([[law_at[0] - half, law_at[0] + half], [1.0, 1.0]]))
        elif left > 1e-3 * q:
            points = profile.points_at(float(log_c))
            ends.append(likelihood_region(points, law.line(), law.weights, low, high, left))
    lower, upper = np.min([e[:, 0] for e in ends], axis=0), np.max([e[:, 1] for e in ends], axis=0)
    error = (upper - lower) / (2 * math.sqrt(q))
    return Uncertainty(
        found.level, "likelihood", error[:k, None], lower[:k, None], upper[:k, None], error[k:], lower[k:], upper[k:]
    )
