"""The level of white noise in images, from the patches that hold nothing else.

The mean square v of m coefficients of a patch (`patches`) is s^2 chi^2_m/m where the image is smooth, and larger where
it is not. With c, k the median of chi^2_m/m and its mean below that,

    s^2 = mean(v | v < c s^2)/k,

which only the lower half of the smooth patches' law enters: an empirical null (Efron 2004). The smallest solution with
enough patches is taken, so that a share of smooth patches is enough. Patch sides and numbers of quiet coefficients are
candidates; texture can only raise a level, so the least is right. It is chosen on one half of the images and measured
on the other, so that choosing does not bias it (cross-fitting). As whole images agree in some pixels (black corners),
the quietest directions of all images are a candidate, too (Marchenko-Pastur's setting; cf. Veraart et al. 2016).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ambient_train.data.estimation.patches import coefficients

Array = np.ndarray
SIDES, SHARES = (2, 3, 4, 6), (0.25, 0.5, 0.95)
BELOW = 0.5
"""Share of the smooth patches' law that is used."""
CLEAN = 0.01
"""Levels below this, in units of [-1, 1], are no noise: 1.3 grey levels of 255."""
Z90 = 1.6448536269514722
_LEAST_PATCHES, _LEAST_SHARE, _LEAST_DOF = 30, 0.04, 3
_GROUPS = 16
_WHOLE, _DIRECTIONS = 1024, (4, 8, 16, 32, 64)
_TEXTURE, _TEXTURE_OF_ONE = 0.03, 0.15
"""What texture adds to a level at most, relative: of a set, and of one image, as measured on the sets of the tests."""
Z_HIGH = 1.2815515655446004


@dataclass(frozen=True)
class Level:
    """A noise level in units of [-1, 1], with its 90 % interval. smooth: share of the patches that are only noise."""

    value: float
    low: float
    high: float
    smooth: float = 1.0


@functools.lru_cache(maxsize=64)
def null(m: int) -> tuple[float, float]:
    """(c, k): the `BELOW` quantile of chi^2_m/m, and the mean of chi^2_m/m below it."""
    from scipy.stats import chi2

    cut = float(chi2.ppf(BELOW, m))
    return cut / m, float(chi2.cdf(cut, m + 2)) / BELOW


def smallest_root(v: Array, m: int, least: int) -> tuple[float, float]:
    """(s^2, share of smooth patches) of mean squares v [n] of m coefficients; (nan, 0) where there is no root."""
    ordered = np.sort(v)
    cut, mean = null(m)
    number = np.arange(1, len(ordered) + 1)
    s2 = np.cumsum(ordered) / number / mean
    following = np.append(ordered[1:], np.inf)
    found = np.flatnonzero((cut * s2 < following) & (number >= least))
    if not len(found):
        return float("nan"), 0.0
    return float(s2[found[0]]), min(1.0, float(number[found[0]]) / BELOW / len(ordered))


def least_patches(total: int) -> int:
    """Patches that must agree on a level."""
    return max(min(_LEAST_PATCHES, total // 4 + 1), int(_LEAST_SHARE * total))


@dataclass(frozen=True)
class Candidate:
    """Patches of a side and the coefficients of them that are quiet; side 0: directions [D, m] of whole images, about
    their mean [D]."""

    side: int
    kept: Array
    mean: Array | None = None

    def energies(self, pixels: Array, clipped: tuple[float, float] | None = None) -> Array:
        """v [N, P]. clipped: values at which pixels of 8 bits saturate; patches that touch them in part are nan."""
        if self.side == 0:
            flat = pixels.reshape(len(pixels), -1) - (0 if self.mean is None else self.mean)
            return ((flat @ self.kept) ** 2).mean(-1, keepdims=True)
        values, ends = coefficients(pixels, self.side)
        v = (values[..., self.kept] ** 2).mean(-1)
        if clipped is not None:
            touched = (ends[..., 0] <= clipped[0]) | (ends[..., 1] >= clipped[1])
            v[touched & (ends[..., 0] != ends[..., 1])] = np.nan
        return v

    @property
    def dof(self) -> int:
        return self.kept.shape[-1] if self.side else int(self.kept.shape[1])


def candidates(pixels: Array) -> list[Candidate]:
    """Those that fit images [N, C, H, W]; which coefficients are quiet is seen on these images."""
    n, c, h, w = pixels.shape
    out = []
    for side in (s for s in SIDES if s <= min(h, w) // 2 or s == 2):
        values, _ = coefficients(pixels, side)
        size = values.shape[-1]
        order = np.argsort(np.median(values.reshape(-1, size) ** 2, axis=0), kind="stable")
        out += [
            Candidate(side, order[:m]) for m in sorted({max(_LEAST_DOF, min(int(size * x), size - 1)) for x in SHARES})
        ]
    size, flat = c * h * w, pixels.reshape(n, -1)
    counts = [m for m in _DIRECTIONS if m <= size // 4]
    if size <= _WHOLE and n >= 4 * size:
        _, vectors = np.linalg.eigh(flat.T @ flat / n)
        out += [Candidate(0, vectors[:, :m]) for m in counts]
    if n >= _LEAST_PATCHES:
        centre = flat.mean(0)
        order = np.argsort(((flat - centre) ** 2).mean(0), kind="stable")
        for m in counts:
            one_hot = np.zeros((size, m))
            one_hot[order[:m], np.arange(m)] = 1
            out.append(Candidate(0, one_hot, centre))
    return out


def measured(v: Array, candidate: Candidate) -> tuple[float, float]:
    """(s^2, share) of energies [N, P]; nan are left out."""
    known = v[np.isfinite(v)]
    if candidate.side == 0:
        return (float(known.mean()), 1.0) if len(known) else (float("nan"), 0.0)
    if not len(known):
        return float("nan"), 0.0
    return smallest_root(known, candidate.dof, least_patches(len(known)))


def _jackknife(v: Array, candidate: Candidate) -> float:
    """Standard error of s^2 over groups of images."""
    groups = np.arange(len(v)) % min(_GROUPS, len(v))
    without = np.array([measured(v[groups != g], candidate)[0] for g in range(groups.max() + 1)])
    k = len(without)
    return float(np.sqrt((k - 1) / k * ((without - without.mean()) ** 2).sum())) if k > 1 else float("inf")


def _half(chosen_on: Array, seen: Array, clipped: tuple[float, float] | None) -> tuple[float, float, float, Candidate]:
    """(s^2, its standard error, share, candidate) on `seen`, with the candidate that is least on `chosen_on`."""
    first, second = chosen_on[::2], chosen_on[1::2] if len(chosen_on) > 1 else chosen_on
    best: tuple[float, Candidate] | None = None
    for candidate in candidates(first):
        v = candidate.energies(second if candidate.side == 0 else chosen_on, clipped)
        s2, _ = measured(v, candidate)
        if not np.isfinite(s2):
            continue
        upper = s2 + 3 * _jackknife(v, candidate)
        if best is None or upper < best[0]:
            best = upper, candidate
    if best is None:
        return float("nan"), float("nan"), 0.0, Candidate(2, np.arange(3))
    v = best[1].energies(seen, clipped)
    s2, share = measured(v, best[1])
    return s2, _jackknife(v, best[1]), share, best[1]


def level_of_set(pixels: Array, clipped: tuple[float, float] | None = None) -> tuple[Level, Candidate]:
    """The one level of images [N, C, H, W] float64, N >= 4, that share it, and how it is best seen.

    clipped: values at which pixels saturate. Texture can only raise the level, so the interval reaches down by 5 % of
    the normal law and 3 % of the level, and up by 10 % of the normal law; the law is that of the spread over images.
    """
    order = np.random.default_rng(0).permutation(len(pixels))
    a, b = pixels[np.sort(order[::2])], pixels[np.sort(order[1::2])]
    halves = [_half(a, b, clipped), _half(b, a, clipped)]
    known = [h for h in halves if np.isfinite(h[0])]
    if not known:
        return Level(float("nan"), 0.0, float("nan"), 0.0), halves[0][3]
    s2 = float(np.mean([h[0] for h in known]))
    se = float(np.sqrt(sum(h[1] ** 2 for h in known))) / len(known)
    share = float(np.mean([h[2] for h in known]))
    least = min(known, key=lambda h: h[0] + h[1])[3]
    low, high = (float(np.sqrt(max(s2 + z * se, 0.0))) for z in (-Z90, Z_HIGH))
    return Level(float(np.sqrt(s2)), low * (1 - _TEXTURE), high, share), least


def levels_of_images(pixels: Array, candidate: Candidate, clipped: tuple[float, float] | None = None) -> list[Level]:
    """The level of each image by itself; its interval is that of noise of the same shape that is measured alike, and
    reaches 15 % further down, for the texture of one image."""
    if candidate.side == 0:
        return [_of_energy(float(v[0]), candidate.dof) for v in candidate.energies(pixels, clipped)]
    v = candidate.energies(pixels, clipped)
    low, high = _spread(pixels.shape[1:], candidate.side, tuple(candidate.kept.tolist()))
    out = []
    for row in v:
        known = row[np.isfinite(row)]
        s2, share = smallest_root(known, candidate.dof, least_patches(len(known))) if len(known) else (np.nan, 0.0)
        widen = 1 / np.sqrt(max(share, 1 / max(len(known), 1)))
        s = float(np.sqrt(s2))
        least = s * float(np.exp(low * widen)) * (1 - _TEXTURE_OF_ONE)
        out.append(Level(s, least, s * float(np.exp(high * widen)), share))
    return out


def _of_energy(v: float, m: int) -> Level:
    from scipy.stats import chi2

    low, high = (float(np.sqrt(v * m / chi2.ppf(q, m))) for q in (0.95, 0.05))
    return Level(float(np.sqrt(v)), low, high)


@functools.lru_cache(maxsize=32)
def _spread(shape: tuple[int, int, int], side: int, kept: tuple[int, ...]) -> tuple[float, float]:
    """ln(s/estimate) at 5 and 95 % for images of noise alone: what an interval reaches down and up."""
    rng = np.random.default_rng(0)
    candidate = Candidate(side, np.array(kept))
    noise = rng.standard_normal((200, *shape))
    v = candidate.energies(noise)
    least = least_patches(v.shape[1])
    estimates = np.array([smallest_root(row, candidate.dof, least)[0] for row in v])
    low, high = np.nanquantile(-0.5 * np.log(estimates), [0.05, 0.95])
    return float(low), float(high)
