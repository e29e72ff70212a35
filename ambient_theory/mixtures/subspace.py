"""Weighted PCA for data of known, mixed noise: the subspace that holds the atoms, in two passes.

The weighted second moment `M = sum_i w_i [(x_i - c)(x_i - c)^T - s_i^2 I]`, sum w = 1, is an unbiased estimate of the
covariance of the law; its leading k-1 eigenvectors span the atoms around their mean. Pass 1 weighs `w ~ s^-4` (best
for a vanishing signal); with the signal strength lambda it finds (the mean of the k-1 leading eigenvalues, clipped at
0), pass 2 weighs `w ~ 1/(s^2 (lambda + s^2))` (derived here; cf. arXiv 1810.12862). The bound's `s^-4` alone is wrong
for strong signals. The centre c is the Gauss-Markov mean. A d x d matrix is formed only when n >= d and d <= 300.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
DENSE_DIMENSION = 300
SHARE_OF_RANK = 10


@dataclass(frozen=True)
class Subspace:
    """centre: (d,); basis: (d, r) orthonormal columns; eigenvalues: (r,) of the signal; signal: lambda >= 0."""

    centre: Floats
    basis: Floats
    eigenvalues: Floats
    signal: float

    def project(self, x: Floats) -> Floats:
        """Coordinates `x @ basis`, (n, r); the origin stays the origin."""
        return x @ self.basis

    def lift(self, coordinates: Floats) -> Floats:
        """Points (m, d) with these coordinates whose part outside the subspace is the centre's."""
        outside = self.centre - self.basis @ (self.basis.T @ self.centre)
        return outside + coordinates @ self.basis.T


def pass_weights(s: Floats, signal: float | None) -> Floats:
    """`s^-4` (signal None), else `1/(s^2 (lambda + s^2))`; not normalised. Any shape."""
    variance = s**2
    return variance**-2.0 if signal is None else 1.0 / (variance * (signal + variance))


def leading_signal(values: Floats) -> float:
    """lambda: the mean of the leading eigenvalues, clipped at 0."""
    return max(0.0, float(np.mean(values))) if len(values) else 0.0


def capped(w: Floats, counts: Floats, most: float) -> Floats:
    """Weights w (n,) of samples, each `counts` times, cut so that no single one carries more than the share `most` of
    the total: a sample of vanishing noise shows one direction exactly and says nothing of the others."""
    order = np.argsort(w)[::-1]
    ordered, size = w[order], counts[order]
    above = np.cumsum(size)  # samples that are cut, if the cut lies below entry j
    below = np.cumsum((size * ordered)[::-1])[::-1] - size * ordered
    room = 1 - most * above
    cut = np.where(room > 0, most * below / np.where(room > 0, room, 1.0), np.inf)
    reached = np.append(ordered[1:], 0.0) <= cut
    if not reached.any() or ordered[0] <= most * float(size @ ordered):
        return w
    return np.minimum(w, cut[np.argmax(reached)]) if np.isfinite(cut[np.argmax(reached)]) else np.ones_like(w)


def weighted_subspace(
    x: Floats, s: Floats, rank: int, rng: np.random.Generator, passes: int = 2, counts: Floats | None = None
) -> Subspace:
    """The leading subspace of samples. x: (n, d); s: (n,) noise; rank: r = k - 1 (0: the mean alone); counts: (n,),
    how often each sample counts.

    Raises UsageError if rank > min(n - 1, d).
    """
    n, d = x.shape
    if rank > min(n - 1, d):
        raise UsageError(f"a subspace of dimension {rank} cannot be found from n = {n} samples in d = {d} dimensions")
    size = np.ones(n) if counts is None else counts
    precision = size * s**-2.0
    centre = precision @ x / precision.sum()
    if rank == 0:
        return Subspace(centre, np.zeros((d, 0)), np.zeros(0), 0.0)
    rows = x - centre
    most = max(1 / (SHARE_OF_RANK * rank), min(1.0, 4 / n))
    signal: float | None = None
    for _ in range(passes):
        w = size * capped(pass_weights(s, signal), size, most)
        w = w / w.sum()
        values, basis = _leading(rows, w, rank, rng)
        values = values - float(w @ s**2)
        signal = leading_signal(values)
    assert signal is not None
    # a direction points where the samples are skewed to: samples that are rotated are then binned and started alike
    skewed = w @ (rows @ basis) ** 3
    return Subspace(centre, np.where(skewed < 0, -basis, basis), values, signal)


def _leading(rows: Floats, w: Floats, rank: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Leading eigenpairs of `sum w_i r_i r_i^T`, values falling: dense, matrix-free, or through the n x n side."""
    n, d = rows.shape
    if d <= DENSE_DIMENSION and n >= d:
        return leading_of_matrix((rows * w[:, None]).T @ rows, rank)
    scaled = rows * np.sqrt(w)[:, None]
    if n < d and n <= DENSE_DIMENSION:
        values, left = leading_of_matrix(scaled @ scaled.T, rank)
        right = scaled.T @ left
        q, r = np.linalg.qr(right)
        return values, q * np.sign(np.where(np.diag(r) == 0, 1.0, np.diag(r)))
    from scipy.sparse.linalg import LinearOperator, eigsh, svds

    start = rng.standard_normal(min(n, d))
    if n < d:
        _, values, vt = svds(scaled, k=rank, v0=start, solver="arpack")
        order = np.argsort(values)[::-1]
        return values[order] ** 2, vt[order].T
    operator = LinearOperator((d, d), matvec=lambda v: scaled.T @ (scaled @ v), dtype=float)
    values, vectors = eigsh(operator, k=rank, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order]


def leading_of_matrix(matrix: Floats, rank: int) -> tuple[Floats, Floats]:
    """Leading `rank` eigenpairs of a symmetric matrix, values falling."""
    from scipy.linalg import eigh

    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - rank, size - 1])
    return values[::-1], vectors[:, ::-1]


def subspace_from_moments(s: Floats, n: Floats, first: Floats, second: Floats, rank: int, passes: int = 2) -> Subspace:
    """The same from sums by noise level (the Wishart engine): first: (L, d) sums of x; second: (L, d, d) of x x^T."""
    precision = s**-2.0
    centre = precision @ first / float(precision @ n)
    if rank == 0:
        return Subspace(centre, np.zeros((first.shape[1], 0)), np.zeros(0), 0.0)
    cross = np.einsum("la,b->lab", first, centre)
    scatter = second - cross - np.swapaxes(cross, 1, 2) + n[:, None, None] * np.outer(centre, centre)
    signal: float | None = None
    for _ in range(passes):
        w = pass_weights(s, signal)
        w = w / float(w @ n)
        values, basis = leading_of_matrix(np.tensordot(w, scatter, axes=1), rank)
        values = values - float(w * n @ s**2)
        signal = leading_signal(values)
    assert signal is not None
    return Subspace(centre, basis, values, signal)


def overlap(basis: Floats, truth: Floats) -> float:
    """`||basis^T truth||_F^2 / r`, both with orthonormal columns: 1 the same subspace, about r/d by chance."""
    return float(np.sum((basis.T @ truth) ** 2) / truth.shape[1])
