"""`HeteroscedasticMixture`: k atoms under Gaussian noise of known, sample-dependent size, with scikit-learn's contract.

The noise is data, not a parameter: `HeteroscedasticMixture(n_components=2).fit(X, noise_std=s).means_`. On the line the
denoised method of moments (`mixtures.dmm`) and the likelihood; in d dimensions first the subspace of the atoms by
two-pass weighted PCA (`mixtures.subspace`), then the fit inside it. `mixtures.predictions` reads off a fit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ambient_theory.bounds import sizes as bounds
from ambient_theory.mixtures.fitting import METHODS, Asked, Found, Method, Samples, fit_line, fit_moments, fit_space
from ambient_theory.mixtures.inference import (
    KINDS,
    Kind,
    Uncertainty,
    bootstrap_intervals,
    check_draws,
    check_has_atoms,
    check_level,
    check_noise_error,
    free_numbers,
    likelihood_region,
    one_number_quantile,
    standard_errors,
)
from ambient_theory.mixtures.inputs import as_counts, as_generator, check_mean_inside, resolve_noise
from ambient_theory.mixtures.laws import quantise_levels
from ambient_theory.mixtures.points import Points, line_points, mean_log_likelihood
from ambient_theory.mixtures.pooling import WEIGHTS, Weights
from ambient_theory.mixtures.predictions import Predictions
from ambient_theory.mixtures.streaming import MomentStream, SpaceStream
from ambient_theory.mixtures.subspace import Subspace
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Diagnostics:
    """What is worth knowing about a fit.

    n: samples; levels, counts: (L,) noise levels used for the weights; n_d, n_l: effective sizes; bound: the terms of
    the rate with constants 1 (a rate, not a guarantee), its floor with `radius` or the fitted law's own;
    weight_condition, low_weight_condition: below about 1 no sample carries too much of n_d, of n_l; projected: the
    moments were those of no law and had to be projected; signal: lambda of the subspace; log_likelihood: mean over
    samples; starts: fits that were compared; tried: mean log-likelihood of each method that `auto` compared.
    """

    n: float
    levels: Floats
    counts: Floats
    n_d: float
    n_l: float
    bound: bounds.BoundTerms
    weight_condition: float
    low_weight_condition: float
    projected: bool
    signal: float
    log_likelihood: float
    starts: int
    tried: Mapping[str, float]


class HeteroscedasticMixture(Predictions, DensityMixin, BaseEstimator):
    """Mixture of k atoms seen through Gaussian noise of known, sample-dependent size: `X_i = Y_i + s_i Z_i`.

    Parameters
    ----------
    n_components : int, k >= 1, the number of atoms.
    method : `auto` (moments, then the likelihood from their answer and from k-means++ starts; the most likely is kept),
        `dmm` (denoised method of moments; in a subspace of two or more dimensions, where it does not exist, the
        likelihood), `mle` (the likelihood alone), `em` (from k-means++ starts, a baseline), `npmle` (on the line; any
        number of atoms).
    weights : how noise levels are pooled by `dmm`: `gls` (estimated covariances), `order` (inverse variance for each
        moment), `sigma` (the bound's s^-(4k-2)), `none`.
    radius : R of the ball around 0 that holds the atoms; None takes the range of the data.
    split : find the subspace on one half and fit on the other, as the theory does; False uses all data twice.
    n_init : k-means++ starts of the likelihood methods.
    max_iter, tol : of the likelihood methods. Converged is where the mean log-likelihood still to be gained, by a
        scoring step, is below tol.
    common_noise : the noise standard deviation of every sample of a fit, which then takes no noise_std; None: noise_std
        is required by every method that needs it.
    random_state : int, RandomState, Generator or None; used for starts and the split only.

    Attributes
    ----------
    means_ : (k, d) atoms, sorted by their first coordinate in the subspace; an atom of weight 0 may repeat another
        where the data support fewer. weights_ : (k,). converged_ : bool. n_iter_ : int. subspace_ : `Subspace` or None
        on the line. diagnostics_ : `Diagnostics`. n_features_in_ : d.

    References: Wu and Yang, arXiv 1807.07237 (method of moments); Daras, Cherapanamjeri and Daskalakis, arXiv
    2411.02780 (mixed noise); Doss, Wu, Yang and Zhou, arXiv 2002.05818 (d dimensions).
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        method: Method = "auto",
        weights: Weights = "gls",
        radius: float | None = None,
        split: bool = False,
        n_init: int = 4,
        max_iter: int = 1000,
        tol: float = 1e-9,
        common_noise: float | None = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.method = method
        self.weights = weights
        self.radius = radius
        self.split = split
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.common_noise = common_noise
        self.random_state = random_state

    # ------------------------------------------------------------------------------------------------------ fitting

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        noise_std: ArrayLike | None = None,
        noise_level: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> HeteroscedasticMixture:
        """Fit to X (n, d). noise_std: standard deviation of each sample's noise: a scalar, (n,), a column (n, 1), or,
        with noise_level (n,) of indices, (L,) for L levels; required unless `common_noise` says it. sample_weight: (n,)
        >= 0, how often each sample counts. y is ignored.

        Raises UsageError (a ValueError) for s <= 0, NaN or infinite, lengths that do not match, an empty level, n < k,
        k < 1, unknown options; DataError if the data cannot come from atoms inside `radius`.
        """
        self._check_parameters()
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=1)
        s = self._noise_of_fit(noise_std, noise_level, len(x), y)
        samples = Samples(x, s, as_counts(sample_weight, len(x)))
        self._check_enough(len(x) if samples.counts is None else int(np.count_nonzero(samples.counts)))
        self._stream: MomentStream | SpaceStream | None = None
        self._fit_any(samples, as_generator(self.random_state))
        return self

    def _check_enough(self, n: float, words: str = "samples") -> None:
        if n < self.n_components:
            raise UsageError(f"n_samples={n:.0f} is less than n_components={self.n_components}: give more {words}")

    def _asked(self) -> Asked:
        return Asked(
            k=self.n_components,
            method=self.method,
            weights=self.weights,
            radius=self.radius,
            split=self.split,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
        )

    def _fit_any(self, samples: Samples, rng: np.random.Generator) -> None:
        samples, asked = samples.in_order(), self._asked()
        if samples.x.shape[1] > 1:
            found, subspace = fit_space(samples, asked, rng)
            self.subspace_ = subspace
            levels, index = quantise_levels(np.array(samples.noise))
            sizes = np.bincount(index, weights=samples.counts).astype(float)
            atoms = subspace.lift(found.atoms)
            if self.radius is not None and found.atoms.shape[1] == 0:
                check_mean_inside(levels, sizes, np.full(len(levels), np.linalg.norm(atoms)), self.radius)
            self._finish(found, atoms, levels, sizes, subspace.signal, samples)
            return
        found, stream = fit_line(samples, asked, rng)
        self.subspace_ = None
        moments = stream.moments()
        self._finish(found, found.atoms, moments.s, moments.n, 0.0, samples)

    def partial_fit(
        self, X: ArrayLike, y: Any = None, *, noise_std: ArrayLike | None = None, noise_level: ArrayLike | None = None
    ) -> HeteroscedasticMixture:
        """Add a chunk of samples and refit. A call of `fit` before is forgotten: the stream starts anew.

        On the line `auto` and `dmm` read the chunk's moments only, so both are `dmm`: exact, in O(chunk) time and
        O(levels k) memory. Otherwise the first 20,000 samples are kept and fitted as by `fit`; beyond them `auto` and
        `dmm` with k <= 2 hold the subspace fixed and stream moments inside it, and anything else raises UsageError.
        """
        self._check_parameters()
        fresh = getattr(self, "_stream", None) is None
        x = validate_data(self, X, dtype=np.float64, reset=fresh)
        s = self._noise_of_fit(noise_std, noise_level, len(x), y)
        k, on_line = self.n_components, x.shape[1] == 1 and self.method in ("auto", "dmm")
        rng = as_generator(self.random_state)
        stream: MomentStream | SpaceStream | None = None if fresh else self._stream
        if stream is None:
            stream = MomentStream.starting_at(2 * k - 1, x[:, 0], s) if on_line else SpaceStream(k, self.method)
        elif isinstance(stream, MomentStream) != on_line or stream.order != 2 * k - 1:
            raise UsageError(
                "n_components or method changed since the stream began: call fit, or use a fresh estimator"
            )
        self._check_enough(stream.n + len(x), "samples in the first chunk")
        last = Samples(x, s)
        if isinstance(stream, MomentStream):
            found = fit_moments(stream.add(x[:, 0], s), self._asked())
            self.subspace_ = None
            moments = stream.moments()
            self._finish(found, found.atoms, moments.s, moments.n, 0.0, last)
        else:
            stream.add(x, np.broadcast_to(s, len(x)), rng)
            self._fit_stream(stream, last, rng)
        self._stream = stream
        return self

    def _fit_stream(self, stream: SpaceStream, last: Samples, rng: np.random.Generator) -> None:
        if stream.frozen is None:
            self._fit_any(Samples(*stream.samples()), rng)
            return
        self.subspace_ = stream.subspace()
        found = Found(np.zeros((1, 0)), np.ones(1), True, 1, "dmm")
        if self.n_components > 1:
            found = fit_moments(stream.line, self._asked())
        moments = stream.line.moments()
        self._finish(found, self.subspace_.lift(found.atoms), moments.s, moments.n, self.subspace_.signal, last)

    def _noise(self, noise_std: ArrayLike | None, noise_level: ArrayLike | None, n: int, y: Any = None) -> Floats:
        return resolve_noise(noise_std, noise_level, n, common=self.common_noise, positional=y)

    def _noise_of_fit(self, noise_std: ArrayLike | None, noise_level: ArrayLike | None, n: int, y: Any) -> Floats:
        """The same for samples that are fitted: stated once, or a score without noise_std would take another."""
        if self.common_noise is not None and noise_std is not None:
            raise UsageError(
                f"common_noise={self.common_noise:g} states the noise of all samples, and noise_std states it, too: "
                "leave one of them out"
            )
        return self._noise(noise_std, noise_level, n, y)

    subspace_: Subspace | None
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions(set(METHODS))],
        "weights": [StrOptions(set(WEIGHTS))],
        "radius": [None, Interval(Real, 0, None, closed="neither")],
        "split": ["boolean"],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "common_noise": [None, Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state", np.random.Generator],
    }

    def _check_parameters(self) -> None:
        try:
            self._validate_params()
        except InvalidParameterError as error:
            raise UsageError(str(error)) from None
        k = self.n_components
        if k >= 4:
            warnings.warn(
                f"k = {k}: in the worst case the error falls only like n_l^(-1/{4 * k - 2}); a tenth of the error "
                f"needs 10^{4 * k - 2} times the samples. Use fewer components unless the atoms are far apart.",
                UserWarning,
                stacklevel=3,
            )

    def _finish(
        self, found: Found, atoms: Floats, levels: Floats, counts: Floats, signal: float, samples: Samples
    ) -> None:
        order = np.argsort(found.atoms[:, 0], kind="stable") if found.atoms.shape[1] else np.arange(len(atoms))
        self.means_ = atoms[order]
        self.weights_ = found.weights[order] / found.weights.sum()
        self.method_ = found.method
        self.converged_ = found.converged
        self.n_iter_ = found.iterations
        k, d = self.n_components, samples.x.shape[1]
        n = float(counts.sum())
        radius = self.radius or float(np.linalg.norm(self.means_ - self.weights_ @ self.means_, axis=1).max()) or None
        self.diagnostics_ = Diagnostics(
            n=int(n) if n == round(n) else n,
            levels=levels,
            counts=counts,
            n_d=bounds.n_d(levels, counts),
            n_l=bounds.n_l(k, levels, counts),
            bound=bounds.bound(k, d, levels, counts, radius=radius),
            weight_condition=bounds.weight_condition(d, levels, counts),
            low_weight_condition=bounds.low_weight_condition(k, levels, counts),
            projected=found.projected,
            signal=signal,
            log_likelihood=self._mean_log_likelihood(samples),
            starts=found.starts,
            tried=dict(found.tried),
        )
        if not found.converged:
            from sklearn.exceptions import ConvergenceWarning

            how = "raise max_iter, or use method='mle'"
            if self.method == "npmle":
                how = "raise tol"
            elif self.method != "em" and found.iterations < self.max_iter:
                how = "the likelihood is flat where it stopped, as with more atoms than the samples show: take fewer "
                how += "n_components, or more n_init"
            warnings.warn(
                f"method {self.method!r} stopped after {found.iterations} iterations without converging: {how}",
                ConvergenceWarning,
                stacklevel=3,
            )

    # -------------------------------------------------------------------------------------------------- uncertainty

    def _points(self, X: ArrayLike, noise_std: ArrayLike | None, sample_weight: ArrayLike | None = None) -> Points:
        """The samples as a likelihood reads them: on the line, in bins where there are many."""
        check_is_fitted(self, "means_")
        x = validate_data(self, X, dtype=np.float64, reset=False)
        samples = Samples(x, self._noise(noise_std, None, len(x)), as_counts(sample_weight, len(x)))
        return line_points(x[:, 0], samples.s, samples.counts) if x.shape[1] == 1 else samples.points()

    def total_log_likelihood(
        self, X: ArrayLike, *, noise_std: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Log density of all samples together."""
        points = self._points(X, noise_std, sample_weight)
        return points.n * mean_log_likelihood(points, self.means_, self.weights_)

    def aic(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> float:
        """`2 P - 2 l`, P = k d + k - 1: smaller is better."""
        check_has_atoms(self)
        free = free_numbers(*self.means_.shape)
        return 2 * free - 2 * self.total_log_likelihood(X, noise_std=noise_std)

    def bic(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> float:
        """`P log n - 2 l`, P = k d + k - 1: smaller is better."""
        check_has_atoms(self)
        points = self._points(X, noise_std)
        log_likelihood = points.n * mean_log_likelihood(points, self.means_, self.weights_)
        return float(free_numbers(*self.means_.shape) * np.log(points.n) - 2 * log_likelihood)

    def intervals(
        self,
        X: ArrayLike,
        *,
        noise_std: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        level: float = 0.9,
        kind: Kind | None = None,
        n_boot: int = 199,
        noise_error: float = 0.0,
        random_state: Any = 0,
    ) -> Uncertainty:
        """Intervals for atoms and weights from the samples of the fit; see `mixtures.inference`.

        kind: `likelihood` (on the line, for one atom or a fit by likelihood: the default there), `fisher`, or
        `bootstrap` (the default for moments and in d dimensions; it takes n_boot fits and no sample_weight).
        noise_error: relative standard error of a factor common to all of noise_std, where the noise is an estimate
        (`NoiseScale.relative_error`), for `bootstrap`. Raises UsageError.
        """
        points = self._points(X, noise_std, sample_weight)
        check_has_atoms(self)
        check_level(level)
        check_noise_error(noise_error)
        by_likelihood = self.subspace_ is None and (self.method_ in ("mle", "em") or self.n_components == 1)
        kind = kind or ("likelihood" if by_likelihood else "bootstrap")
        if kind not in KINDS:
            raise UsageError(f"unknown kind {kind!r} of interval: choose one of {', '.join(KINDS)}")
        if kind == "bootstrap":
            if sample_weight is not None:
                raise UsageError("bootstrap intervals need samples without weights: write the repetitions out")
            n = len(np.asarray(X))
            s = np.array(np.broadcast_to(self._noise(noise_std, None, n), n))
            return bootstrap_intervals(
                self, s, level, check_draws(n_boot, level), as_generator(random_state), noise_error
            )
        if noise_error:
            raise UsageError(
                f"{kind} intervals take the noise as known: use kind='bootstrap' with noise_error, or, on the line, "
                "noise_scale(..., intervals=True)"
            )
        if not by_likelihood and kind == "likelihood":
            raise UsageError("likelihood intervals are for a fit by likelihood on the line: use kind='bootstrap'")
        if self.subspace_ is not None:
            raise UsageError("fisher intervals are for samples on the line: use kind='bootstrap'")
        means_se, weights_se, _ = standard_errors(points, self.means_, self.weights_)
        z = one_number_quantile(level) ** 0.5
        ends = np.stack([np.append(self.means_[:, 0], self.weights_)] * 2, axis=1)
        if kind == "fisher" or len(self.weights_) == 1:  # of one atom the log-likelihood is a parabola
            ends = ends + z * np.append(means_se[:, 0], weights_se)[:, None] * [-1, 1]
        else:
            low, high = float(points.x.min()), float(points.x.max())
            if self.radius is not None:
                low, high = -self.radius, self.radius
            ends = likelihood_region(points, self.means_[:, 0], self.weights_, low, high, z**2)
        k = len(self.weights_)
        return Uncertainty(level, kind, means_se, ends[:k, :1], ends[:k, 1:], weights_se, ends[k:, 0], ends[k:, 1])

    def _mean_log_likelihood(self, samples: Samples, most: int = 100_000) -> float:
        """On at most `most` samples, evenly taken: a diagnostic must not cost more than the fit."""
        chosen = samples.part(np.arange(0, len(samples.x), max(1, len(samples.x) // most)))
        points = chosen.points()
        if samples.x.shape[1] == 1:
            points = line_points(chosen.x[:, 0], chosen.s, chosen.counts)
        return mean_log_likelihood(points, self.means_, self.weights_)
