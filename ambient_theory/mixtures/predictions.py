"""What a fitted law says of samples: densities, posterior probabilities and means (empirical Bayes), new samples.

With the law as a prior and the noise s of each sample, `r_j(x, s) = w_j N(x; a_j, s^2 I) / f(x)` is the posterior of
atom j and `E[Y | X = x] = sum_j r_j(x, s) a_j` the best guess, in mean square, of what lies behind x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ambient_theory.mixtures.inputs import Scored, as_counts, as_generator
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.mixtures.points import Points, log_kernels
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


class Predictions(OneToOneFeatureMixin, TransformerMixin):
    """The methods of `HeteroscedasticMixture` that read means_ and weights_. Every noise_std is the standard deviation
    of each sample's noise, as in `fit`, and required unless `common_noise` says it."""

    means_: Floats
    weights_: Floats
    common_noise: Any
    random_state: Any
    if TYPE_CHECKING:  # of the estimator
        fit: Any
        _noise: Any

    @property
    def law_(self) -> AtomicLaw:
        """The fitted law as an `AtomicLaw`."""
        check_is_fitted(self, "means_")
        return AtomicLaw(self.means_, self.weights_)

    def _joint(self, X: ArrayLike, noise_std: ArrayLike | None) -> Floats:
        """`log w_j N(x_i; a_j, s_i^2 I)`, (n, k)."""
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
    def score(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        noise_std: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Mean log density; with sample_weight (n,) the weighted mean."""
        values = self.score_samples(X, noise_std=noise_std)
        return float(np.average(values, weights=as_counts(sample_weight, len(values))))

    def predict_proba(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """Posterior probability of each atom, (n, k)."""
        joint = self._joint(X, noise_std)
        shifted = np.exp(joint - joint.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def predict(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> NDArray[np.int64]:
        """Most probable atom of each sample, (n,)."""
        return np.argmax(self._joint(X, noise_std), axis=1)

    def predict_mean(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """`E[Y | X]`: the posterior mean behind each sample, (n, d)."""
        return self.predict_proba(X, noise_std=noise_std) @ self.means_

    def predict_std(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """Posterior standard deviation of Y behind each sample, coordinate by coordinate, (n, d)."""
        posterior = self.predict_proba(X, noise_std=noise_std)
        mean = posterior @ self.means_
        return np.sqrt(np.einsum("nk,nkd->nd", posterior, (self.means_ - mean[:, None, :]) ** 2))

    def transform(self, X: ArrayLike, *, noise_std: ArrayLike | None = None) -> Floats:
        """The denoised samples, `predict_mean`."""
        return self.predict_mean(X, noise_std=noise_std)

    def fit_transform(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        noise_std: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Floats:
        """`fit`, then `transform` of the same samples with the same noise."""
        self.fit(X, y, noise_std=noise_std, sample_weight=sample_weight)
        return self.transform(X, noise_std=noise_std)

    def fit_predict(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        noise_std: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """`fit`, then `predict` of the same samples with the same noise."""
        self.fit(X, y, noise_std=noise_std, sample_weight=sample_weight)
        return self.predict(X, noise_std=noise_std)

    def sample(
        self, n_samples: int = 1, *, noise_std: ArrayLike | None = None, random_state: Any = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """New samples `X = Y + s Z` of the fitted law: X (n, d) and the atom (n,) of each.

        noise_std: a scalar, or (n_samples,). random_state: None takes the estimator's.
        """
        check_is_fitted(self, "means_")
        if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise UsageError(f"n_samples must be a whole number >= 1, not {n_samples!r}")
        rng = as_generator(self.random_state if random_state is None else random_state)
        s = np.broadcast_to(self._noise(noise_std, None, int(n_samples)), int(n_samples))
        label = rng.choice(len(self.weights_), size=int(n_samples), p=self.weights_)
        noise = rng.standard_normal((int(n_samples), self.means_.shape[1]))
        return self.means_[label] + s[:, None] * noise, label
