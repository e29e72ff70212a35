"""The level of smooth patches among others, from the lower part of their law: an empirical null (Efron 2004).

The mean square v of m coefficients of a smooth patch is s^2 chi^2_m/m. With c, k the q quantile of chi^2_m/m and its
mean below that, s^2 solves

    mean(v | v < c s^2) = k s^2.

Texture t of a patch multiplies its v by 1 + t. A share e of such patches raises the root by e s^2 r_q(t), to first
order in e,

    r_q(t) = ((1 + t) P(chi^2_{m+2} < a) - k P(chi^2_m < a)) / d_q,      a = c m/(1 + t),
    d_q = k q - (c - k) c m f_m(c m),                                    f_m the density of chi^2_m,

the influence of t: t itself where it is small, nothing where it is large. Between them lies texture that no q leaves
out, but more of it enters where q is larger: two roots that differ tell how much the smaller one has kept (`texture`).
"""

from __future__ import annotations

import functools

import numpy as np

Array = np.ndarray
BELOW, WIDER = 0.5, 0.9
"""Share q of the smooth patches' law that is used for a level, and the larger one that it is held against."""
LEAST_PATCHES, _LEAST_SHARE = 30, 0.04


@functools.lru_cache(maxsize=64)
def null(m: int, below: float = BELOW) -> tuple[float, float]:
    """(c, k): the `below` quantile of chi^2_m/m, and the mean of chi^2_m/m below it."""
    from scipy.stats import chi2

    cut = float(chi2.ppf(below, m))
    return cut / m, float(chi2.cdf(cut, m + 2)) / below


def smallest_root(v: Array, m: int, least: int, below: float = BELOW) -> tuple[float, float]:
    """(s^2, share of smooth patches) of mean squares v [n] of m coefficients; (nan, 0) where there is no root."""
    return root(np.sort(v), m, least, below)


def root(ordered: Array, m: int, least: int, below: float) -> tuple[float, float]:
    """`smallest_root` of mean squares by ascending size."""
    cut, mean = null(m, below)
    number = np.arange(1, len(ordered) + 1)
    s2 = np.cumsum(ordered) / number / mean
    following = np.append(ordered[1:], np.inf)
    found = np.flatnonzero((cut * s2 < following) & (number >= least))
    if not len(found):
        return float("nan"), 0.0
    return float(s2[found[0]]), min(1.0, float(number[found[0]]) / below / len(ordered))


def least_patches(total: int) -> int:
    """Patches that must agree on a level."""
    return max(min(LEAST_PATCHES, total // 4 + 1), int(_LEAST_SHARE * total))


def slope(m: int, below: float) -> float:
    """d_q."""
    from scipy.stats import chi2

    cut, mean = null(m, below)
    return mean * below - (cut - mean) * cut * m * float(chi2.pdf(cut * m, m))


def influence(t: Array, m: int, below: float) -> Array:
    """r_q(t), for t > 0 of any shape."""
    from scipy.stats import chi2

    cut, mean = null(m, below)
    a = cut * m / (1 + t)
    return ((1 + t) * chi2.cdf(a, m + 2) - mean * chi2.cdf(a, m)) / slope(m, below)


@functools.lru_cache(maxsize=64)
def remainder(m: int) -> float:
    """b/(B - b), with b, B what texture of all strengths alike adds to the roots of `BELOW` and of `WIDER`: the
    integrals of r_q(t) dt/t. 1.3 for many coefficients, 1.8 for 3."""
    u = np.linspace(-14, 14, 561)
    narrow, wide = (float(influence(np.exp(u), m, q).sum()) for q in (BELOW, WIDER))
    return narrow / (wide - narrow)


def texture(v: Array, m: int, s2: float) -> float:
    """What is left of texture in the root s2 of mean squares v [n], as far as the wider root shows it.

    B - b, the difference of the two roots, is read off at s2 (one step of Newton's method, since a wider root of its
    own may be that of the texture), and b is `remainder` times that, for texture with density 1/t: without a scale of
    its own, as the contrast of images spreads over orders of magnitude. Where most of it is strong, less is left than
    that; texture that is much weaker than the spread of v everywhere moves both roots alike and is not seen. Without
    texture the value is 0 on average, and of either sign.
    """
    cut, mean = null(m, WIDER)
    smooth = float((v <= null(m)[0] * s2).sum()) / BELOW
    if not smooth:
        return 0.0
    inside = v[v <= cut * s2]
    return remainder(m) * float((inside - mean * s2).sum()) / smooth / slope(m, WIDER)
