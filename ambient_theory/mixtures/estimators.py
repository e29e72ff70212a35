"""`HeteroscedasticMixture`: k atoms under Gaussian noise of known, sample-dependent size, with scikit-learn's contract.

The noise is data, not a parameter: `HeteroscedasticMixture(n_components=2).fit(X, noise_std=s).means_`. On the line the
denoised method of moments (`mixtures.dmm`) or a likelihood; in d dimensions first the subspace of the atoms by two-pass
weighted PCA (`mixtures.subspace`), then the fit inside it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ambient_theory.bounds import sizes as bounds
from ambient_theory.mixtures.dmm import fit_dmm
from ambient_theory.mixtures.inputs import Scored, as_generator, check_mean_inside, resolve_noise
from ambient_theory.mixtures.laws import AtomicLaw, quantise_levels
from ambient_theory.mixtures.likelihood import (
    LikelihoodFit,
    Points,
    fit_em,
    fit_mle,
    fit_npmle,
    line_points,
    log_kernels,
    mean_log_likelihood,
    plus_plus_start,
)
from ambient_theory.mixtures.pooling import WEIGHTS, Weights
from ambient_theory.mixtures.streaming import MomentStream, SpaceStream
from ambient_theory.mixtures.subspace import Subspace, weighted_subspace
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
METHODS = ("dmm", "mle", "em", "npmle")


@dataclass(frozen=True)
class Diagnostics:
    """What is worth knowing about a fit. n: samples; levels, counts: (L,) noise levels used for the weights; n_d, n_l:
    effective sizes; bound: the two terms of the rate with constants 1 (a rate, not a guarantee); weight_condition:
    below about 1 no sample carries too much weight; projected: the moments were those of no law and had to be
    projected; signal: lambda of the subspace; log_likelihood: mean over samples; starts: fits that were compared."""

    n: int
    levels: Floats
    counts: Floats
    n_d: float
    n_l: float
    bound: bounds.BoundTerms
    weight_condition: float
    projected: bool
    signal: float
    log_likelihood: float
    starts: int


@dataclass(frozen=True)
class _Fit:
    """A law in the coordinates of the subspace. atoms: (m, r)."""

    atoms: Floats
    weights: Floats
    converged: bool
    iterations: int
    projected: bool = False
    starts: int = 1


class HeteroscedasticMixture(DensityMixin, BaseEstimator):
    """Mixture of k atoms seen through Gaussian noise of known, sample-dependent size: `X_i = Y_i + s_i Z_i`.

    Parameters
    ----------
    n_components : int, k >= 1, the number of atoms.
    method : `dmm` (denoised method of moments; in a subspace of two or more dimensions, where it does not exist, the
        likelihood), `mle` (L-BFGS from the moments' answer and from k-means++ starts), `em`, `npmle` (on the line; any
        number of atoms). The last two are baselines.
    weights : how noise levels are pooled by `dmm`: `gls` (estimated covariances), `order` (inverse variance for each
        moment), `sigma` (the bound's s^-(4k-2)), `none`.
    radius : R of the ball around 0 that holds the atoms; None takes the range of the data.
    split : find the subspace on one half and fit on the other, as the theory does; False uses all data twice.
    n_init : k-means++ starts of the likelihood methods.
    max_iter, tol : of `mle` and `em`.
    common_noise : the noise standard deviation of every sample where none is given with the samples; None: noise_std is
        required by every method that needs it.
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
        method: str = "dmm",
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
        self, X: ArrayLike, y: Any = None, *, noise_std: ArrayLike | None = None, noise_level: ArrayLike | None = None
    ) -> HeteroscedasticMixture:
        """Fit to X (n, d). noise_std: standard deviation of each sample's noise: a scalar, (n,), a column (n, 1), or,
        with noise_level (n,) of indices, (L,) for L levels; required unless `common_noise` says it. y is ignored.

        Raises UsageError (a ValueError) for s <= 0, NaN or infinite, lengths that do not match, an empty level, n < k,
        k < 1, unknown options; DataError if the data cannot come from atoms inside `radius`.
        """
        self._check_parameters()
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=1)
        s = self._noise(noise_std, noise_level, len(x), y)
        if len(x) < self.n_components:
            raise UsageError(f"n_samples={len(x)} is less than n_components={self.n_components}: give more samples")
        self._stream: MomentStream | SpaceStream | None = None
        self._fit_any(x, s, as_generator(self.random_state))
        return self

    def _fit_any(self, x: Floats, s: Floats, rng: np.random.Generator) -> None:
        """x: (n, d); s: (1,) or (n,)."""
        if x.shape[1] > 1:
            self._fit_space(x, np.broadcast_to(s, len(x)), rng)
            return
        stream = MomentStream.starting_at(2 * self.n_components - 1, x[:, 0], s).add(x[:, 0], s)
        fit = self._fit_line(stream, x, s, rng)
        self.subspace_: Subspace | None = None
        moments = stream.moments()
        self._finish(fit, fit.atoms, moments.s, moments.n, 0.0, x, s)

    def partial_fit(
        self, X: ArrayLike, y: Any = None, *, noise_std: ArrayLike | None = None, noise_level: ArrayLike | None = None
    ) -> HeteroscedasticMixture:
        """Add a chunk of samples and refit. A call of `fit` before is forgotten: the stream starts anew.

        On the line with method `dmm`: exact, in O(chunk) time and O(levels k) memory. Otherwise the first 20,000
        samples are kept and fitted as by `fit`; beyond them `dmm` with k <= 2 holds the subspace fixed and streams
        moments inside it, and anything else raises UsageError.
        """
        self._check_parameters()
        fresh = getattr(self, "_stream", None) is None
        x = validate_data(self, X, dtype=np.float64, reset=fresh)
        s = self._noise(noise_std, noise_level, len(x), y)
        k, on_line = self.n_components, x.shape[1] == 1 and self.method == "dmm"
        rng = as_generator(self.random_state)
        stream: MomentStream | SpaceStream | None = None if fresh else self._stream
        if stream is None:
            stream = MomentStream.starting_at(2 * k - 1, x[:, 0], s) if on_line else SpaceStream(k, self.method)
        elif isinstance(stream, MomentStream) != on_line or stream.order != 2 * k - 1:
            raise UsageError(
                "n_components or method changed since the stream began: call fit, or use a fresh estimator"
            )
        if stream.n + len(x) < k:
            raise UsageError(f"n_samples={stream.n + len(x)} is less than n_components={k}: give a larger chunk")
        if isinstance(stream, MomentStream):
            fit = self._fit_line(stream.add(x[:, 0], s), None, None, rng)
            self.subspace_ = None
            moments = stream.moments()
            self._finish(fit, fit.atoms, moments.s, moments.n, 0.0, x, s)
        else:
            stream.add(x, np.broadcast_to(s, len(x)), rng)
            self._fit_stream(stream, x, s, rng)
        self._stream = stream
        return self

    def _fit_stream(self, stream: SpaceStream, x: Floats, s: Floats, rng: np.random.Generator) -> None:
        if stream.frozen is None:
            self._fit_any(*stream.samples(), rng)
            return
        self.subspace_ = stream.subspace()
        fit = _Fit(np.zeros((1, 0)), np.ones(1), True, 1)
        if self.n_components > 1:
            fit = self._fit_line(stream.line, None, None, rng)
        moments = stream.line.moments()
        atoms = self.subspace_.lift(fit.atoms)
        self._finish(fit, atoms, moments.s, moments.n, self.subspace_.signal, x, s)

    def _noise(self, noise_std: ArrayLike | None, noise_level: ArrayLike | None, n: int, y: Any = None) -> Floats:
        return resolve_noise(noise_std, noise_level, n, common=self.common_noise, positional=y)

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

    def _fit_line(self, stream: MomentStream, x: Floats | None, s: Floats | None, rng: np.random.Generator) -> _Fit:
        """Atoms (m, 1) from a stream of moments, and from the samples where the method needs them."""
        moments, origin = stream.moments(), stream.origin
        low, high = (stream.low, stream.high) if self.radius is None else (-self.radius, self.radius)
        if self.radius is not None:
            check_mean_inside(moments.s, moments.n, moments.means[:, 0] + origin, self.radius)
        if not high > low:
            high = low + 1e-12 * max(1.0, abs(low))
        found = fit_dmm(moments, low - origin, high - origin, weights=self.weights)
        atoms, w = found.atoms[:, None] + origin, found.weights
        if self.method == "dmm":
            return _Fit(atoms, w, True, 1 if moments.s.size == 1 else 2, bool(found.projected))
        assert x is not None
        assert s is not None
        points = line_points(x[:, 0], s)
        starts = [(atoms, w)]
        best = self._likelihood(points, starts, np.array([low]), np.array([high]), rng)
        return _Fit(best.atoms, best.weights, best.converged, best.iterations, bool(found.projected), best.starts)

    def _fit_space(self, x: Floats, s: Floats, rng: np.random.Generator) -> None:
        n, d = x.shape
        k = self.n_components
        first = second = np.arange(n)
        if self.split:
            if n < 2 * k:
                raise UsageError(f"split=True halves the data: n_samples={n} is less than twice n_components={k}")
            order = rng.permutation(n)
            first, second = order[: n // 2], order[n // 2 :]
        rank = min(k - 1, d)
        if rank < d:
            subspace = weighted_subspace(x[first], s[first], min(rank, len(x[first]) - 1), rng)
        else:
            subspace = Subspace(np.zeros(d), np.eye(d), np.zeros(d), 0.0)
        z, noise = subspace.project(x[second]), s[second]
        if rank == 0:
            fit = _Fit(np.zeros((1, 0)), np.ones(1), True, 1)
        elif subspace.basis.shape[1] == 1:
            stream = MomentStream.starting_at(2 * k - 1, z[:, 0], noise).add(z[:, 0], noise)
            fit = self._fit_line(stream, z, noise, rng)
        else:
            if self.method == "npmle":
                raise UsageError(f"method 'npmle' works on the line or with k = 2, not in {rank} dimensions: use 'mle'")
            low, high = z.min(axis=0), z.max(axis=0)
            if self.radius is not None:
                low, high = np.full(z.shape[1], -self.radius), np.full(z.shape[1], self.radius)
            fit = self._likelihood(Points(z, noise, np.ones(len(z))), [], low, high, rng)
        self.subspace_ = subspace
        levels, index = quantise_levels(s)
        atoms = subspace.lift(fit.atoms)
        if self.radius is not None and rank == 0:
            check_mean_inside(levels, np.bincount(index), np.full(len(levels), np.linalg.norm(atoms)), self.radius)
        self._finish(fit, atoms, levels, np.bincount(index).astype(float), subspace.signal, x, s)

    def _likelihood(
        self,
        points: Points,
        starts: list[tuple[Floats, Floats]],
        low: Floats,
        high: Floats,
        rng: np.random.Generator,
    ) -> _Fit:
        """The best of all starts by likelihood, in units of the smallest noise around the mean."""
        if self.method == "npmle":
            best = fit_npmle(points, float(low[0]), float(high[0]))
            return _Fit(best.atoms, best.weights, best.converged, best.iterations)
        unit = float(points.s.min())
        weight = points.counts / points.s**2
        centre = weight @ points.x / weight.sum()
        local = Points((points.x - centre) / unit, points.s / unit, points.counts)
        low, high = (low - centre) / unit, (high - centre) / unit
        all_starts = [((a - centre) / unit, w) for a, w in starts]
        all_starts += [plus_plus_start(local, self.n_components, rng) for _ in range(self.n_init)]
        found: list[LikelihoodFit] = []
        for atoms, weights in all_starts:
            if self.method == "em":
                found.append(fit_em(local, atoms, weights, max_iter=self.max_iter, tol=self.tol))
            else:
                found.append(fit_mle(local, atoms, weights, low, high, max_iter=self.max_iter))
        best = max(found, key=lambda f: f.log_likelihood)
        return _Fit(centre + unit * best.atoms, best.weights, best.converged, best.iterations, starts=len(found))

    def _finish(
        self, fit: _Fit, atoms: Floats, levels: Floats, counts: Floats, signal: float, x: Floats, s: Floats
    ) -> None:
        order = np.argsort(fit.atoms[:, 0], kind="stable") if fit.atoms.shape[1] else np.arange(len(atoms))
        self.means_ = atoms[order]
        self.weights_ = fit.weights[order] / fit.weights.sum()
        self.converged_ = fit.converged
        self.n_iter_ = fit.iterations
        k, d = self.n_components, x.shape[1]
        self.diagnostics_ = Diagnostics(
            n=int(round(counts.sum())),
            levels=levels,
            counts=counts,
            n_d=bounds.n_d(levels, counts),
            n_l=bounds.n_l(k, levels, counts),
            bound=bounds.bound(k, d, levels, counts),
            weight_condition=bounds.weight_condition(d, levels, counts),
            projected=fit.projected,
            signal=signal,
            log_likelihood=self._mean_log_likelihood(x, np.broadcast_to(s, len(x))),
            starts=fit.starts,
        )
        if not fit.converged:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"method {self.method!r} stopped after {fit.iterations} iterations without converging: raise max_iter, "
                "or use method='mle'",
                ConvergenceWarning,
                stacklevel=3,
            )

    # -------------------------------------------------------------------------------------------------- predictions

    @property
    def law_(self) -> AtomicLaw:
        """The fitted law as an `AtomicLaw`."""
        check_is_fitted(self, "means_")
        return AtomicLaw(self.means_, self.weights_)

    def _joint(self, X: ArrayLike, noise_std: ArrayLike | None) -> Floats:
        check_is_fitted(self, "means_")
        x = validate_data(self, X, dtype=np.float64, reset=False)
        s = np.broadcast_to(self._noise(noise_std, None, len(x)), len(x))
        with np.errstate(divide="ignore"):
            return log_kernels(Points(x, s, np.ones(len(x))), self.means_) + np.log(self.weights_)

    def score_samples(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """Log density of each sample under the fitted law and its own noise, (n,)."""
        from scipy.special import logsumexp

        return logsumexp(self._joint(X, noise_std), axis=1)

    @Scored
    def score(self, X: ArrayLike, y: Any = None, *, noise_std: ArrayLike | None = None) -> float:
        """Mean log density."""
        return float(self.score_samples(X, noise_std=noise_std).mean())

    def predict_proba(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """Posterior probability of each atom, (n, k)."""
        joint = self._joint(X, noise_std)
        shifted = np.exp(joint - joint.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def predict(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> NDArray[np.int64]:
        """Most probable atom of each sample, (n,)."""
        return np.argmax(self._joint(X, noise_std), axis=1)

    def _mean_log_likelihood(self, x: Floats, s: Floats, most: int = 100_000) -> float:
        """On at most `most` samples, evenly taken: a diagnostic must not cost more than the fit."""
        step = max(1, len(x) // most)
        points = Points(x[::step], s[::step], np.ones(len(x[::step])))
        return mean_log_likelihood(points, self.means_, self.weights_)
