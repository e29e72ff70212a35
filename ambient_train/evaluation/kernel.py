"""Kernel distance (KID): the unbiased squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Gretton et al. 2012; Binkowski et al. 2018). Its expectation is 0 for equal distributions at every n, so it can be
negative: unlike the Frechet distance it has no finite-sample floor. All pairs are used, not random subsets of them,
which would only add noise. The standard error is a delete-a-group jackknife over the generated images at a fixed
reference; every leave-one-out value follows from the sums of the kernel over pairs of groups, computed once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ambient_theory.shared.errors import DataError
from ambient_train.evaluation.frechet import Jackknife, jackknife
from ambient_train.evaluation.statistics import deal_groups

Array = npt.NDArray[np.float64]
_BLOCK = 512


def cubic_kernel(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """k(x_i, y_j) = (x_i . y_j / d + 1)^3 for rows [n, d] and [m, d] -> [n, m], float64."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    base = a @ (b.T / a.shape[1])
    base += 1
    return base * base * base


def kernel_sum(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Sum of k over all pairs of a row of x and a row of y, a block of pairs at a time."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    total = 0.0
    for i in range(0, len(a), _BLOCK):
        for j in range(0, len(b), _BLOCK):
            total += float(cubic_kernel(a[i : i + _BLOCK], b[j : j + _BLOCK]).sum())
    return total


def kernel_mean_within(x: npt.ArrayLike) -> float:
    """Mean of k over all ordered pairs of different rows of x [n, d], n >= 2."""
    a = _checked(x)
    n = len(a)
    return (_sum_with_itself(a) - _diagonal(a)) / (n * (n - 1))


def mmd_squared(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Unbiased estimate of MMD^2 between rows [n, d] and [m, d], n, m >= 2. It may be negative."""
    a, b = _checked(x), _checked(y)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"features of {a.shape[1]} and {b.shape[1]} dimensions cannot be compared")
    return kernel_mean_within(a) + kernel_mean_within(b) - 2 * kernel_sum(a, b) / (len(a) * len(b))


def kernel_distance(
    generated: npt.ArrayLike, reference: npt.ArrayLike, *, reference_mean: float | None = None, groups: int = 20
) -> Jackknife:
    """MMD^2 of generated and reference features, with its delete-a-group standard error.

    reference_mean: `kernel_mean_within(reference)`, if it is known from an earlier call. With S_gh the kernel's sum
    over pairs of different images in groups g and h, and P_g that over pairs of group g and the reference, the value
    without group j is (S - 2 S_j. + S_jj) / (n' (n' - 1)) + reference_mean - 2 (P - P_j) / (n' m), n' = n - n_j.

    Raises DataError if either side is too small, not finite, or of another width.
    """
    x, y = _checked(generated), _checked(reference)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    n, m = len(x), len(y)
    if n < 2 * groups:
        raise DataError(f"{n} generated images are too few for KID with {groups} groups: give {2 * groups} or more")
    labels = deal_groups(0, n, groups)
    parts = [x[labels == k] for k in range(groups)]
    pairs = np.empty((groups, groups))
    for g in range(groups):
        pairs[g, g] = _sum_with_itself(parts[g]) - _diagonal(parts[g])
        for h in range(g):
            pairs[g, h] = pairs[h, g] = kernel_sum(parts[g], parts[h])
    cross = np.array([kernel_sum(part, y) for part in parts])
    within_reference = kernel_mean_within(y) if reference_mean is None else reference_mean

    def value(pair_sum: npt.ArrayLike, cross_sum: npt.ArrayLike, count: npt.ArrayLike) -> Array:
        k = np.asarray(count, np.float64)
        return np.asarray(pair_sum) / (k * (k - 1)) + within_reference - 2 * np.asarray(cross_sum) / (k * m)

    rest = n - np.array([len(part) for part in parts])
    without = value(pairs.sum() - 2 * pairs.sum(axis=1) + np.diag(pairs), cross.sum() - cross, rest)
    return jackknife(float(value(pairs.sum(), cross.sum(), n)), without)


def _sum_with_itself(a: Array) -> float:
    """Sum of k over all ordered pairs of rows, each pair of blocks computed once."""
    total = 0.0
    for i in range(0, len(a), _BLOCK):
        head = a[i : i + _BLOCK]
        total += float(cubic_kernel(head, head).sum()) + 2 * kernel_sum(head, a[i + _BLOCK :])
    return total


def _diagonal(a: Array) -> float:
    """Sum of k(x_i, x_i)."""
    return float((((a * a).sum(axis=1) / a.shape[1] + 1) ** 3).sum())


def _checked(rows: npt.ArrayLike) -> Array:
    a = np.asarray(rows, np.float64)
    if a.ndim != 2:
        raise DataError(f"features must be [n, d], not of shape {a.shape}")
    if len(a) < 2:
        raise DataError(f"a kernel distance needs at least 2 images on each side, not {len(a)}")
    if not np.isfinite(a).all():
        raise DataError("features are not finite")
    return a
