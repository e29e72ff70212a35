"""How sure a fit is: intervals for atoms and weights, the number of atoms, goodness of fit.

Three kinds of interval. `likelihood` (on the line): the range of each number over all laws of k ordered atoms with
`2 (l_max - l) <= q`, q the chi-square quantile of one degree of freedom; the likelihood need not be a parabola,
which it is not where atoms are closer than the noise. `fisher`: estimate +- z standard errors from the scores' outer
products. `bootstrap`: samples drawn from the fit with the same noise and fitted again, bias-corrected percentiles
(Efron, 1987); the one for moments, and in d dimensions, where the subspace is estimated, too. Where the noise is an
estimate itself, each is fitted with the noise times `exp(e Z)`, e its relative standard error: an efficient estimate of
the noise is independent, to first order, of the estimate of the law at the true noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import chdtr, ndtr, ndtri

from ambient_theory.mixtures.dmm import LineFit, fit_dmm
from ambient_theory.mixtures.information import scores, told
from ambient_theory.mixtures.points import Points, log_density, mean_log_likelihood
from ambient_theory.mixtures.streaming import level_moments
from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    from ambient_theory.mixtures.estimators import HeteroscedasticMixture

Floats = NDArray[np.float64]
Kind = Literal["likelihood", "fisher", "bootstrap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AT_ONCE = 500_000
"""Numbers drawn at a time by a bootstrap of moments."""


@dataclass(frozen=True)
class Uncertainty:
    """means_stderr, means_low, means_high: (k, d); weights_*: (k,); level: of each interval; kind: how they were made.
    A standard error is infinite where the data say nothing (an atom of weight 0, two atoms in one place)."""

    level: float
    kind: Kind
    means_stderr: Floats
    means_low: Floats
    means_high: Floats
    weights_stderr: Floats
    weights_low: Floats
    weights_high: Floats

    def to_dict(self) -> dict[str, Any]:
        return {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in asdict(self).items()}


def standard_errors(points: Points, atoms: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Standard errors of atoms (k, r) and weights (k,), and the covariance (k r + k, k r + k) of all of them. Of one
    atom the information is known, `sum_i c_i / s_i^2` whatever the samples."""
    k, r = atoms.shape
    if k == 1:
        variance = 1 / float(np.sum(points.counts / points.s**2))
        return np.full((1, r), math.sqrt(variance)), np.zeros(1), np.diag([*[variance] * r, 0.0])
    s, left_out = scores(points, atoms, weights)
    root = s * np.sqrt(points.counts)[:, None]
    size = np.linalg.norm(root, axis=0)
    seen = told(points, size, k)
    inner = np.full((len(size), len(size)), 0.0)
    scaled = root[:, seen] / size[seen]
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = np.maximum(values, 1e-12 * values.max(initial=0.0))
    inner[np.ix_(seen, seen)] = (vectors / kept) @ vectors.T / np.outer(size[seen], size[seen])
    to_all = np.zeros((k * r + k, len(size)))
    to_all[: k * r, : k * r] = np.eye(k * r)
    others = np.delete(np.arange(k), left_out)
    to_all[k * r + others, k * r + np.arange(k - 1)] = 1.0
    to_all[k * r + left_out, k * r :] = -1.0
    covariance = to_all @ inner @ to_all.T
    error = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    error[: k * r][~seen[: k * r]] = np.inf
    error[k * r + others[~seen[k * r :]]] = np.inf
    return error[: k * r].reshape(k, r), error[k * r :], covariance


def likelihood_region(points: Points, atoms: Floats, weights: Floats, low: float, high: float, q: float) -> Floats:
    """Ends (2 k, 2) of atoms and weights on the line over all laws with `2 n (l_max - l) <= q`, by one constrained
    programme an end (SLSQP from where a quadratic log-likelihood would have it). atoms: (k,) sorted, in [low, high]."""
    k, n = len(weights), points.n
    best = mean_log_likelihood(points, atoms[:, None], weights)
    by_atom, by_weight, covariance = standard_errors(points, atoms[:, None], weights)
    at = np.concatenate([atoms, weights])
    most = np.concatenate([np.full(k, (high - low) / 4), np.full(k, 0.25)])
    unit = np.clip(np.concatenate([by_atom[:, 0], by_weight]), 1e-9 * most, most)
    share = points.counts / n

    def law(u: Floats) -> tuple[Floats, Floats]:
        theta = at + unit * u
        w = np.maximum(theta[k:], 0.0)
        return theta[:k], w / w.sum()

    def room(u: Floats) -> float:
        a, w = law(u)
        return q / 2 + n * (float(share @ log_density(points, a[:, None], w)) - best)

    def slope(u: Floats) -> Floats:
        a, w = law(u)
        floor = np.maximum(w, 1e-12)
        s, left_out = scores(points, a[:, None], floor / floor.sum())
        g = n * (share @ s)
        by_w = np.insert(g[k:], left_out, 0.0)  # along w_j - w_left_out: the same on the plane sum w = 1
        return np.concatenate([g[:k], by_w - by_w @ w]) * unit

    ordered = np.zeros((k - 1, 2 * k))
    ordered[np.arange(k - 1), np.arange(k - 1)] = -unit[: k - 1]
    ordered[np.arange(k - 1), np.arange(1, k)] = unit[1:k]
    total = np.concatenate([np.zeros(k), unit[k:]])
    constraints = [
        {"type": "ineq", "fun": room, "jac": slope},
        {"type": "eq", "fun": lambda u: float(total @ u), "jac": lambda u: total},
        {"type": "ineq", "fun": lambda u: np.diff(at[:k] + unit[:k] * u[:k]), "jac": lambda u: ordered},
    ]
    lower, upper = np.concatenate([np.full(k, low), np.zeros(k)]), np.concatenate([np.full(k, high), np.ones(k)])
    box = list(zip((lower - at) / unit, (upper - at) / unit, strict=True))
    ends = np.empty((2 * k, 2))
    for j in range(2 * k):
        for side, sign in enumerate((-1.0, 1.0)):
            direction = np.zeros(2 * k)
            direction[j] = -sign
            quadratic = sign * math.sqrt(q) * covariance[:, j] / max(math.sqrt(covariance[j, j]), 1e-300) / unit
            reached = 0.0
            for length in (1.0, 0.3):
                start = np.clip(length * quadratic, *np.array(box).T)
                start[k:] -= (start[k:] @ unit[k:]) / (k * unit[k:])  # back onto sum w = 1
                found = minimize(
                    lambda u, c=direction: float(c @ u),
                    np.clip(start, *np.array(box).T),
                    jac=lambda u, c=direction: c,
                    bounds=box,
                    constraints=constraints,
                    method="SLSQP",
                    options={"maxiter": 200, "ftol": 1e-6},
                )
                if np.all(np.isfinite(found.x)) and room(found.x) > -0.05 * q:
                    reached = max(reached, sign * float(found.x[j]))
            ends[j, side] = at[j] + sign * unit[j] * reached
    return ends


def matched(atoms: Floats, weights: Floats, to: Floats) -> tuple[Floats, Floats]:
    """Atoms and weights in the order in which they are nearest to the atoms `to` (k, d), altogether: by the least sum
    of squares, which on the line is the order of both; sums of distances would tie there between many orders."""
    cost = np.sum((atoms[:, None, :] - to) ** 2, axis=-1)
    rows, columns = linear_sum_assignment(cost)
    order = rows[np.argsort(columns)]
    return atoms[order], weights[order]


def refits(
    model: HeteroscedasticMixture, s: Floats, n_boot: int, rng: np.random.Generator, noise_error: float = 0.0
) -> list[Any]:
    """Estimators fitted again to samples drawn from the fit with the noise s (n,), each with s known up to a common
    factor of relative standard error `noise_error`."""
    from sklearn.base import clone

    out = []
    for _ in range(n_boot):
        x, _ = model.sample(len(s), noise_std=s, random_state=rng)
        again = clone(model).set_params(random_state=int(rng.integers(2**31)), n_init=1, common_noise=None)
        factor = math.exp(noise_error * rng.standard_normal()) if noise_error else 1.0
        out.append((x, again.fit(x, noise_std=factor * s)))
    return out


def moment_refits(model: HeteroscedasticMixture, s: Floats, n_boot: int, rng: np.random.Generator) -> LineFit:
    """What `refits` would find on the line by moments, many samples at once: a fit costs a thirtieth. s: (n,)."""
    n, order = len(s), 2 * model.n_components - 1
    origin, unit = float(model.weights_ @ model.means_[:, 0]), float(s.min())
    atoms = (model.means_[:, 0] - origin) / unit
    ball = None if model.radius is None else (np.array([-model.radius, model.radius]) - origin) / unit
    found = []
    for start in range(0, n_boot, rows := max(1, AT_ONCE // n)):
        size = (min(rows, n_boot - start), n)
        z = atoms[rng.choice(len(atoms), size=size, p=model.weights_)] + s / unit * rng.standard_normal(size)
        low, high = (z.min(axis=1), z.max(axis=1)) if ball is None else ball
        found.append(fit_dmm(level_moments(z, s / unit, order), low, high, weights=model.weights))
    means, weights = (np.concatenate([getattr(f, name) for f in found]) for name in ("atoms", "weights"))
    inner = np.argsort(means, axis=1)
    means, weights = np.take_along_axis(means, inner, axis=1), np.take_along_axis(weights, inner, axis=1)
    return LineFit(origin + unit * means, weights, np.concatenate([f.projected for f in found]))


def bootstrap_intervals(
    model: HeteroscedasticMixture, s: Floats, level: float, n_boot: int, rng: Any, noise_error: float = 0.0
) -> Uncertainty:
    """Bias-corrected percentile intervals and standard deviations of `n_boot` refits. s: (n,)."""
    if model.method == "dmm" and model.subspace_ is None and not noise_error:
        fits = moment_refits(model, s, n_boot, rng)
        means, weights = fits.atoms[..., None], fits.weights
    else:
        again = [fit for _, fit in refits(model, s, n_boot, rng, noise_error)]
        found = [matched(fit.means_, fit.weights_, model.means_) for fit in again]
        means, weights = (np.array(part) for part in zip(*found, strict=True))
    m_se, m_low, m_high = bias_corrected(means, model.means_, level)
    w_se, w_low, w_high = bias_corrected(weights, model.weights_, level)
    return Uncertainty(level, "bootstrap", m_se, m_low, m_high, w_se, w_low, w_high)


def bias_corrected(draws: Floats, at: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Standard deviation, lower and upper end, of draws (B, ...) around an estimate: quantiles of the draws at
    `Phi(2 z0 -+ z)`, Phi(z0) the share of draws below the estimate.

    The quantile of p is the draw of rank `p (B + 1)`, which a new draw falls below with chance p; that of rank
    `1 + p (B - 1)`, often used, would leave out 1.8 points of 90 at B = 100.
    """
    size = len(draws)
    tie = np.mean(draws < at, axis=0) + np.mean(draws == at, axis=0) / 2
    z0 = ndtri(np.clip(tie, 0.5 / size, 1 - 0.5 / size))
    z = ndtri((1 + level) / 2)
    ordered = np.sort(draws, axis=0)
    ends = []
    for side in (-z, z):
        rank = np.clip(ndtr(2 * z0 + side) * (size + 1), 1, size)
        below = np.floor(rank).astype(int)
        first = np.take_along_axis(ordered, below[None] - 1, axis=0)[0]
        second = np.take_along_axis(ordered, np.minimum(below, size - 1)[None], axis=0)[0]
        ends.append(first + (rank - below) * (second - first))
    return draws.std(axis=0, ddof=1), ends[0], ends[1]


# ------------------------------------------------------------------------------------------- the number of atoms


@dataclass(frozen=True)
class Candidate:
    """One number of atoms k. log_likelihood: of all samples; aic, bic: smaller is better."""

    k: int
    log_likelihood: float
    aic: float
    bic: float


def free_numbers(k: int, d: int) -> int:
    """`k d + k - 1` atoms and weights of k atoms in d dimensions."""
    return k * d + k - 1


def number_of_components(
    model: HeteroscedasticMixture, X: ArrayLike, noise_std: ArrayLike, candidates: Sequence[int] = (1, 2, 3, 4, 5)
) -> list[Candidate]:
    """Log-likelihood, AIC and BIC of each number of atoms, fitted as `model` (which need not be fitted) is set up."""
    return [
        Candidate(again.n_components, again.total_log_likelihood(X, noise_std=noise_std), *both)
        for again in _fits(model, X, noise_std, candidates)
        for both in [(again.aic(X, noise_std=noise_std), again.bic(X, noise_std=noise_std))]
    ]


def _fits(model: Any, X: ArrayLike, noise_std: ArrayLike, candidates: Sequence[int]) -> list[Any]:
    import warnings

    from sklearn.base import clone

    check_has_atoms(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more atoms than there are: that is the question
        return [
            clone(model).set_params(n_components=k, common_noise=None).fit(X, noise_std=noise_std) for k in candidates
        ]


@dataclass(frozen=True)
class Test:
    """statistic, and p: the share of `n_boot` bootstrap statistics that reach it, `(1 + #) / (1 + n_boot)`."""

    statistic: float
    p: float
    n_boot: int


def likelihood_ratio_test(
    model: HeteroscedasticMixture, X: ArrayLike, noise_std: ArrayLike, *, n_boot: int = 99, random_state: Any = 0
) -> Test:
    """k atoms, as `model` has, against k + 1: `2 (l_{k+1} - l_k)`, whose law under k is bootstrapped (McLachlan, 1987),
    since it is no chi-square. A small p speaks for more atoms."""
    from ambient_theory.mixtures.inputs import as_generator

    check_boot(n_boot)
    rng, k = as_generator(random_state), model.n_components

    def statistic(x: Any, s: Any) -> tuple[float, Any]:
        smaller, larger = _fits(model, x, s, (k, k + 1))
        ratio = larger.total_log_likelihood(x, noise_std=s) - smaller.total_log_likelihood(x, noise_std=s)
        return 2 * max(ratio, 0.0), smaller

    seen, null = statistic(X, noise_std)
    n = len(np.asarray(X))
    s = np.broadcast_to(null._noise(noise_std, None, n), n)
    drawn = [statistic(null.sample(n, noise_std=s, random_state=rng)[0], s)[0] for _ in range(n_boot)]
    return Test(seen, (1 + sum(v >= seen for v in drawn)) / (1 + n_boot), n_boot)


# ------------------------------------------------------------------------------------------------ goodness of fit


def anderson_darling(u: Floats) -> float:
    """`-n - 1/n sum (2i - 1) (log u_(i) + log(1 - u_(n+1-i)))` of n numbers that should be uniform on [0, 1]."""
    u = np.clip(np.sort(u), 1e-300, 1 - 1e-16)
    n = len(u)
    weights = 2 * np.arange(1, n + 1) - 1
    return float(-n - weights @ (np.log(u) + np.log1p(-u[::-1])) / n)


def misfit(model: HeteroscedasticMixture, x: Floats, s: Floats) -> float:
    """Anderson-Darling distance of what the fit makes uniform: `F_i(x_i)` along each direction of the subspace and, in
    d dimensions, the chi-square probability of what lies outside it. Summed. x: (n, d); s: (n,)."""
    space, d = model.subspace_, x.shape[1]
    basis = np.eye(d) if space is None else space.basis
    total = 0.0
    for direction in basis.T:
        z = (x @ direction)[:, None] - model.means_ @ direction
        total += anderson_darling(ndtr(z / s[:, None]) @ model.weights_)
    outside = d - basis.shape[1]
    if outside:
        rest = x - model.means_[0]
        rest = rest - (rest @ basis) @ basis.T
        total += anderson_darling(chdtr(outside, np.sum(rest**2, axis=1) / s**2))
    return total


def goodness_of_fit(
    model: HeteroscedasticMixture, X: ArrayLike, noise_std: ArrayLike, *, n_boot: int = 99, random_state: Any = 0
) -> Test:
    """Could these samples come from k atoms with this noise? `misfit`, its law bootstrapped with refits. A small p says
    no: more atoms, atoms that are no points, or noise that is wrong."""
    from sklearn.utils.validation import check_is_fitted, validate_data

    from ambient_theory.mixtures.inputs import as_generator

    check_boot(n_boot)
    check_is_fitted(model, "means_")
    x = validate_data(model, X, dtype=np.float64, reset=False)
    s = np.array(np.broadcast_to(model._noise(noise_std, None, len(x)), len(x)))
    seen = misfit(model, x, s)
    drawn = [misfit(again, other, s) for other, again in refits(model, s, n_boot, as_generator(random_state))]
    return Test(seen, (1 + sum(v >= seen for v in drawn)) / (1 + n_boot), n_boot)


def check_boot(n_boot: int) -> int:
    """The number of bootstrap samples. Raises UsageError below 1."""
    if isinstance(n_boot, bool) or not isinstance(n_boot, Integral) or n_boot < 1:
        raise UsageError(f"n_boot must be a whole number >= 1, not {n_boot!r}")
    return int(n_boot)


def least_draws(level: float) -> int:
    """Bootstrap samples from which an interval of this level can be read: of fewer, the rank `p (B + 1)` of its lower
    end, p = (1 - level)/2, is less than one."""
    return math.ceil(2 / (1 - level) - 1 - 1e-9)


def check_draws(n_boot: int, level: float) -> int:
    """The number of samples of a bootstrap interval. Raises UsageError where they are too few for its level."""
    if check_boot(n_boot) < least_draws(level):
        raise UsageError(
            f"{n_boot} bootstrap samples are too few for intervals of level {level:g}: give {least_draws(level)} or "
            "more, or a lower level"
        )
    return int(n_boot)


def check_has_atoms(model: HeteroscedasticMixture) -> None:
    """Raises UsageError for `npmle`."""
    if model.method == "npmle":
        raise UsageError(
            "the most likely of all laws has no fixed number of atoms, to be sure of or to be chosen: take another "
            "method than 'npmle'"
        )


def check_noise_error(error: float) -> float:
    """The relative standard error of the noise. Raises UsageError where it is no finite number >= 0."""
    if not (isinstance(error, Real) and 0 <= error < math.inf):
        raise UsageError(f"noise_error is a relative standard error, a finite number >= 0, not {error!r}")
    return float(error)


def check_level(level: float) -> float:
    """The level. Raises UsageError outside (0, 1)."""
    if not (isinstance(level, Real) and 0 < level < 1):
        raise UsageError(f"the level of an interval lies between 0 and 1, such as 0.9, not {level!r}")
    return float(level)


def one_number_quantile(level: float) -> float:
    """The chi-square quantile of one degree of freedom, `z^2` with z the normal quantile of (1 + level)/2."""
    return float(ndtri((1 + level) / 2) ** 2)
