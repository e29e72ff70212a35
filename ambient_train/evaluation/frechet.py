"""Frechet distance between Gaussians, and its standard error.

    FD = |mu_a - mu_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2

(Dowson and Landau 1982; Heusel et al. 2017 for features of images). A^1/2 B A^1/2 is symmetric and positive, so its
square root's trace is the sum of the square roots of its eigenvalues: no general matrix square root, nothing complex,
and rank-deficient covariances are no special case. Float64 throughout. The covariance of n images has rank n - 1: with
U [d, n] a basis of its range, A may be U'AU and B be U'BU, which is exact and makes a jackknife of few images in many
dimensions (pixels) affordable.

With n images, FD is biased upward by about c / n even if both distributions are equal: for d-dimensional Gaussian
features a perfect generator has E[n FD] -> d (d + 5) / 4 (in whitened features, n >> d). The bias is never subtracted
here; the jackknife reports an estimate of it, and scores come with a floor computed at the same n. Near that floor the
linear term of the distance vanishes and the jackknife's standard error is too wide (by 1.25 to 1.5 times, measured at
d = 16 and 64, n = 1000 and 10,000); away from it, it covers as it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import linalg

from ambient_theory.shared.errors import DataError
from ambient_train.evaluation.statistics import FeatureStatistics, RunningStatistics, merge_all

Array = npt.NDArray[np.float64]


FEW = 0.5
"""Up to so many images a dimension the distance is computed in the range of their covariance."""
_SPARE = 8
"""Columns of a basis beyond the rank, so that none of its directions is missed."""


class FrechetReference:
    """The distance from many sets to one reference: A^1/2 is computed once, where it is needed."""

    def __init__(self, statistics: FeatureStatistics):
        self.statistics = statistics
        self._trace = float(np.trace(statistics.cov))

    @cached_property
    def _root(self) -> Array:
        return symmetric_root(self.statistics.cov)

    def distance(self, other: FeatureStatistics, basis: Array | None = None) -> float:
        """Frechet distance to `other`, >= 0. basis [d, r]: orthonormal, of a space that holds the range of its
        covariance, where one is known. Raises DataError if the dimensions or extractors differ."""
        mine = self.statistics
        if mine.dim != other.dim:
            raise DataError(f"features of {mine.dim} and {other.dim} dimensions cannot be compared")
        if mine.extractor and other.extractor and mine.extractor != other.extractor:
            raise DataError(f"features of {mine.extractor} and {other.extractor} cannot be compared")
        if basis is None:
            basis = range_of(other)
        if basis is None:
            root, inside = self._root, other.cov
        else:
            root, inside = symmetric_root(basis.T @ other.cov @ basis), basis.T @ mine.cov @ basis
        middle = root @ inside @ root
        eigenvalues = linalg.eigvalsh((middle + middle.T) / 2, check_finite=False)
        shift = mine.mean - other.mean
        cross = float(np.sqrt(np.clip(eigenvalues, 0, None)).sum())
        value = float(shift @ shift) + self._trace + float(np.trace(other.cov)) - 2 * cross
        return max(value, 0.0)


def range_of(statistics: FeatureStatistics) -> Array | None:
    """Orthonormal basis [d, r] of a space that holds the range of the covariance; None of more images than `FEW`, and
    of statistics that are not of so few images as they say.

    r = n - 1 + 8: the image of as many random directions, which of rank n - 1 misses nothing (Halko, Martinsson and
    Tropp 2011). The directions are always the same.
    """
    n, dim = statistics.n, statistics.dim
    if n is None or n + _SPARE > FEW * dim:
        return None
    directions = np.random.default_rng(0).standard_normal((dim, n - 1 + _SPARE))
    basis = np.asarray(linalg.qr(statistics.cov @ directions, mode="economic", check_finite=False)[0])
    held = float(np.sum(basis * (statistics.cov @ basis)))
    return basis if held >= (1 - 1e-9) * float(np.trace(statistics.cov)) else None


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Frechet distance of two sets of feature statistics (see the module's equation); symmetric, >= 0.

    Raises DataError if dimensions or extractors differ (non-finite statistics cannot be built at all).
    """
    return FrechetReference(a).distance(b)


def symmetric_root(matrix: Array) -> Array:
    """The symmetric square root of a symmetric positive semi-definite matrix [d, d]; eigenvalues are clipped at 0."""
    eigenvalues, vectors = linalg.eigh((matrix + matrix.T) / 2, check_finite=False)
    return (vectors * np.sqrt(np.clip(eigenvalues, 0, None))) @ vectors.T


@dataclass(frozen=True)
class Jackknife:
    """value: the estimate from all rows. stderr: its standard error. bias: estimate of value minus its limit."""

    value: float
    stderr: float
    bias: float
    groups: int


def jackknife(value: float, without_group: Sequence[float] | Array) -> Jackknife:
    """Delete-a-group jackknife (Quenouille 1956; Tukey 1958) from g leave-one-group-out values.

        stderr^2 = (g-1)/g sum_j (t_j - t_mean)^2        bias = (g-1) (t_mean - value)

    The bias estimate is right for a bias of c / n. The degrees of freedom of an interval are g - 1.
    """
    t = np.asarray(without_group, np.float64)
    g = len(t)
    if g < 2:
        raise DataError(f"a jackknife needs at least 2 groups, not {g}")
    stderr = math.sqrt((g - 1) / g * float(((t - t.mean()) ** 2).sum()))
    return Jackknife(float(value), stderr, (g - 1) * (float(t.mean()) - float(value)), g)


def jackknife_frechet(
    reference: FrechetReference, groups: Sequence[RunningStatistics], extractor: str | None = None
) -> Jackknife:
    """Frechet distance of all rows of `groups` to the reference with its delete-a-group standard error.

    Each leave-one-out statistic is the total with one group taken out of the sums (no second pass over features). The
    error is that of the generated images at a fixed reference. Raises DataError if a leave-one-out set would
    hold fewer than 2 rows or a group none.
    """
    total = merge_all(groups)
    if min(group.n for group in groups) < 1 or total.n - max(group.n for group in groups) < 2:
        raise DataError(f"{total.n} images are too few for a jackknife over {len(groups)} groups")
    every = total.finish(extractor)
    basis = range_of(every)  # of every part of the images, too
    value = reference.distance(every, basis)
    return jackknife(value, [reference.distance(total.without(g).finish(extractor), basis) for g in groups])
