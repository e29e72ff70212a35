"""The fits behind `HeteroscedasticMixture`: on the line, in the atoms' subspace, and the best of several starts.

`auto` on the line takes the denoised method of moments and maximum likelihood started from it and from k-means++, and
keeps the most likely: the moments survive where the likelihood is flat, the likelihood wins where noise is spread or k
is large. Where moments do not exist (a subspace of two or more dimensions) it is the likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.dmm import fit_dmm
from ambient_theory.mixtures.inputs import check_mean_inside
from ambient_theory.mixtures.likelihood import LikelihoodFit, fit_em, fit_mle, fit_npmle, plus_plus_start
from ambient_theory.mixtures.points import MERGE_UP_TO, Points, line_points, mean_log_likelihood, merged
from ambient_theory.mixtures.pooling import Weights
from ambient_theory.mixtures.streaming import MomentStream
from ambient_theory.mixtures.subspace import Subspace, weighted_subspace
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
Method = Literal["auto", "dmm", "mle", "em", "npmle"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a fit is asked for; see `HeteroscedasticMixture`."""

    k: int
    method: Method = "auto"
    weights: Weights = "gls"
    radius: float | None = None
    split: bool = False
    n_init: int = 4
    max_iter: int = 1000
    tol: float = 1e-9


@dataclass(frozen=True)
class Samples:
    """x: (n, d); s: (n,) or (1,), one for all; counts: (n,) or None, one each."""

    x: Floats
    s: Floats
    counts: Floats | None = None

    @property
    def n(self) -> float:
        return float(len(self.x) if self.counts is None else self.counts.sum())

    @property
    def noise(self) -> Floats:
        """(n,)."""
        return np.broadcast_to(self.s, len(self.x))

    @property
    def multiplicity(self) -> Floats:
        """(n,)."""
        return np.ones(len(self.x)) if self.counts is None else self.counts

    def points(self) -> Points:
        return Points(self.x, np.array(self.noise), self.multiplicity)

    def in_order(self) -> Samples:
        """Up to 20,000 samples sorted and joined where equal, so that neither their order nor the writing out of a
        repetition changes a digit; more of them as they are, without those of count 0."""
        if len(self.x) > MERGE_UP_TO:
            if self.counts is None or self.counts.all():
                return self
            used = self.counts > 0
            return Samples(self.x[used], self.s if self.s.size == 1 else self.s[used], self.counts[used])
        p = merged(self.x, np.array(self.noise), self.multiplicity)
        return Samples(p.x, p.s[:1] if p.s.min() == p.s.max() else p.s, None if np.all(p.counts == 1) else p.counts)

    def part(self, index: NDArray[np.int64]) -> Samples:
        return Samples(
            self.x[index],
            self.s if self.s.size == 1 else self.s[index],
            None if self.counts is None else self.counts[index],
        )


@dataclass(frozen=True)
class Found:
    """A law in the coordinates of the subspace. atoms: (m, r); method: whose answer it is; tried: mean log-likelihood
    of each method that was compared, on the samples (or bins) of the fit."""

    atoms: Floats
    weights: Floats
    converged: bool
    iterations: int
    method: str
    projected: bool = False
    starts: int = 1
    tried: Mapping[str, float] = field(default_factory=dict)


def fit_moments(stream: MomentStream, asked: Asked) -> Found:
    """The denoised method of moments from a stream: atoms (k, 1). Raises DataError for data outside the radius."""
    moments, origin = stream.moments(), stream.origin
    low, high = interval(stream, asked)
    if asked.radius is not None:
        check_mean_inside(moments.s, moments.n, moments.means[:, 0] + origin, asked.radius)
    found = fit_dmm(moments, low - origin, high - origin, weights=asked.weights)
    passes = 1 if moments.s.size == 1 else 2 if asked.k <= 2 else 3
    return Found(found.atoms[:, None] + origin, found.weights, True, passes, "dmm", bool(found.projected))


def interval(stream: MomentStream, asked: Asked) -> tuple[float, float]:
    """Where atoms may lie: the ball, or the range of the data."""
    low, high = (stream.low, stream.high) if asked.radius is None else (-asked.radius, asked.radius)
    return low, high if high > low else low + 1e-12 * max(1.0, abs(low))


def fit_line(samples: Samples, asked: Asked, rng: np.random.Generator) -> tuple[Found, MomentStream]:
    """Atoms (m, 1) of samples on the line, and the moments that were read on the way."""
    x = samples.x[:, 0]
    stream = MomentStream.starting_at(2 * asked.k - 1, x, samples.s).add(x, samples.s, samples.counts)
    by_moments = fit_moments(stream, asked)
    if asked.method == "dmm" or (asked.method == "auto" and asked.k == 1):
        return by_moments, stream
    points = line_points(x, samples.s, samples.counts)
    low, high = (np.array([end]) for end in interval(stream, asked))
    starts = [(by_moments.atoms, by_moments.weights)] if asked.method in ("auto", "mle") else []
    best = replace(best_of_starts(points, starts, low, high, asked, rng), projected=by_moments.projected)
    if asked.method != "auto":
        return best, stream
    tried = {"dmm": mean_log_likelihood(points, by_moments.atoms, by_moments.weights), **best.tried}
    return replace(by_moments if tried["dmm"] > tried["mle"] else best, tried=tried), stream


def fit_space(samples: Samples, asked: Asked, rng: np.random.Generator) -> tuple[Found, Subspace]:
    """Subspace by weighted PCA, then the fit inside it: atoms (m, r)."""
    (n, d), k = samples.x.shape, asked.k
    first = second = samples
    if asked.split:
        if n < 2 * k:
            raise UsageError(f"split=True halves the data: n_samples={n} is less than twice n_components={k}")
        order = rng.permutation(n)
        first, second = samples.part(order[: n // 2]), samples.part(order[n // 2 :])
    rank = min(k - 1, d)
    if rank < d:
        rows = first.points()
        subspace = weighted_subspace(rows.x, rows.s, min(rank, len(rows.x) - 1), rng, counts=rows.counts)
    else:
        subspace = Subspace(np.zeros(d), np.eye(d), np.zeros(d), 0.0)
    inside = Samples(subspace.project(second.x), second.s, second.counts)
    if subspace.basis.shape[1] == 0:
        return Found(np.zeros((1, 0)), np.ones(1), True, 1, "dmm"), subspace
    if subspace.basis.shape[1] == 1:
        return fit_line(inside, asked, rng)[0], subspace
    if asked.method == "npmle":
        raise UsageError(f"method 'npmle' works on the line or with k = 2, not in {rank} dimensions: use 'mle'")
    low, high = inside.x.min(axis=0), inside.x.max(axis=0)
    if asked.radius is not None:
        low, high = np.full(rank, -asked.radius), np.full(rank, asked.radius)
    return best_of_starts(inside.points(), [], low, high, asked, rng), subspace


def best_of_starts(
    points: Points,
    starts: list[tuple[Floats, Floats]],
    low: Floats,
    high: Floats,
    asked: Asked,
    rng: np.random.Generator,
) -> Found:
    """The best by likelihood of the given and of k-means++ starts, in units of the smallest noise around the mean."""
    if asked.method == "npmle":
        whole = fit_npmle(points, float(low[0]), float(high[0]), refine=3, tol=max(asked.tol, 1e-7))
        return Found(whole.atoms, whole.weights, whole.converged, whole.iterations, "npmle")
    unit = float(points.s.min())
    weight = points.counts / points.s**2
    centre = weight @ points.x / weight.sum()
    local = Points((points.x - centre) / unit, points.s / unit, points.counts)
    low, high = (low - centre) / unit, (high - centre) / unit
    every = [((a - centre) / unit, w) for a, w in starts]
    every += [plus_plus_start(local, asked.k, rng) for _ in range(asked.n_init)]
    found: list[LikelihoodFit] = []
    for atoms, weights in every:
        if asked.method == "em":
            found.append(fit_em(local, atoms, weights, max_iter=asked.max_iter, tol=asked.tol))
        else:
            found.append(fit_mle(local, atoms, weights, low, high, max_iter=asked.max_iter, tol=asked.tol))
    best = max(found, key=lambda f: f.log_likelihood)
    value = best.log_likelihood - points.x.shape[1] * float(np.log(unit))
    name = "em" if asked.method == "em" else "mle"
    return Found(
        centre + unit * best.atoms,
        best.weights,
        best.converged,
        best.iterations,
        name,
        starts=len(found),
        tried={name: value},
    )
