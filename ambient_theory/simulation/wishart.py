"""The engine in d dimensions: draws of first and second moments, at a cost that does not grow with n.

The n samples of one level, sorted by their atom z, have group means `m_z = a_z + s g_z / sqrt(n_z)` and, independent
of them, a pooled scatter `s^2 W`, `W ~ Wishart(n - #groups, I)`. So, exactly,

    sum x = sum_z n_z m_z,      sum x x^T = sum_z n_z m_z m_z^T + s^2 W,

with multinomial n_z: the noncentral Wishart law with its mean, drawn jointly. W comes from Bartlett's decomposition
(lower triangle of normals, square roots of chi-squares on the diagonal), or from its few Gaussian rows when its
degrees of freedom are below d.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.laws import AtomicLaw

Floats = NDArray[np.float64]


def standard_wishart(freedom: int, d: int, rng: np.random.Generator) -> Floats:
    """One draw of Wishart(freedom, I_d), (d, d); 0 for freedom 0."""
    if freedom < d:
        rows = rng.standard_normal((freedom, d))
        return rows.T @ rows
    factor = np.tril(rng.standard_normal((d, d)), -1)
    factor[np.diag_indices(d)] = np.sqrt(rng.chisquare(freedom - np.arange(d)))
    return factor @ factor.T


def draw_second_moments(
    law: AtomicLaw, s: Sequence[float] | Floats, n: Sequence[int], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Sums of x (L, d) and of x x^T (L, d, d) for every noise level of one replicate."""
    first = np.zeros((len(n), law.d))
    second = np.zeros((len(n), law.d, law.d))
    for level, (sigma, size) in enumerate(zip(s, n, strict=True)):
        groups = rng.multinomial(size, law.weights).astype(float)
        used = groups > 0
        noise = rng.standard_normal((int(used.sum()), law.d))
        means = law.atoms[used] + float(sigma) * noise / np.sqrt(groups[used])[:, None]
        first[level] = groups[used] @ means
        second[level] = (means.T * groups[used]) @ means
        second[level] += float(sigma) ** 2 * standard_wishart(int(size) - int(used.sum()), law.d, rng)
    return first, second
