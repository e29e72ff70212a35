"""The level of white noise in images, from the patches that hold nothing else.

The mean square v of m coefficients of a patch (`patches`) is s^2 chi^2_m/m where the image is smooth, and larger where
it is not. Texture can only raise a level, so of several ways of seeing it the least is right. The ways are

* patches among the darkest or the brightest: their mean is a coefficient of its own, which white noise leaves
  independent of the others, so that choosing by it does not bias mean(v). Backgrounds and skies are such;
* all patches, where smooth ones are not told by their brightness, by the root that only the lower half of the smooth
  patches' law enters (`roots`). The smallest one with enough patches is taken, so that a share of smooth patches is
  enough;
* pixels in which whole images agree (black corners), about their mean, by the same root over images, with the lower
  nine tenths of the law: a few images that differ there do not enter. They vary least; where noise hides which do, they
  are told by their mean, too, the darkest or brightest of all, which white noise leaves independent of the variance;
* the quietest directions of all images (Marchenko-Pastur's setting; cf. Veraart et al. 2016).

Each with patch sides and numbers of quiet coefficients or pixels. A way is chosen on one half of the images, by the
least upper end of its interval, and measured on the other half, so that choosing does not bias it (cross-fitting).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ambient_train.data.estimation.patches import blocks, coefficients, patches_in, step_of
from ambient_train.data.estimation.roots import (
    BELOW,
    LEAST_PATCHES,
    least_patches,
    null,
    root,
    smallest_root,
    texture,
)

Array = np.ndarray
SIDES, SHARES = (2, 3, 4, 6), (0.25, 0.5, 0.95)
ENDS = (0.05, 0.1, 0.2, 0.4)
"""Shares of the patches that count as the darkest, or the brightest."""
_BELOW_OF_PIXELS = 0.9
"""Share of the law of images that is used."""
CLEAN = 0.01
"""Levels below this, in units of [-1, 1], are no noise: 1.3 grey levels of 255."""
_LEAST_DOF = 3
_GROUPS, _CAUTION, _APART = 16, 2.0, 2.0
_WHOLE, _DIRECTIONS = 1024, (4, 6, 8, 12, 16, 24, 32, 48, 64)
_FEWEST = 4
"""Pixels that vary least, of which `_orders` takes the noise."""
_UNSEEN = 1.0
"""Texture of a set that is allowed for, in standard errors of a half: less is not seen by the choice of a way."""
_TOUCHED = 0.02
"""Share of saturated patches beyond which those beside them are no fair sample of the noise."""
_TEXTURE_OF_ONE = 0.15
"""What texture adds to the level of one image at most, relative, where images do not say it by sharing a level."""
_LEAST_SHARING = 40
_SIMULATED, _ALONG = 200, 64
"""Images of noise that tell how much a level scatters, and the most patches along their sides."""
Z_HIGH = 1.2815515655446004


@dataclass(frozen=True)
class Level:
    """A noise level in units of [-1, 1], with its 90 % interval. smooth: share of the patches that are only noise."""

    value: float
    low: float
    high: float
    smooth: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """A way of seeing the level: patches of a side and the coefficients of them that are quiet.

    shades: the constant coefficients between which patches are looked at. share: of each image, the darkest patches
    (the brightest, where negative). side 0: m directions or pixels [D, m] of whole images, pixels about `mean` [D].
    """

    side: int
    kept: Array
    mean: Array | None = None
    shades: tuple[float, float] | None = None
    share: float = 0.0

    def energies(self, pixels: Array, clipped: tuple[float, float] | None = None) -> Array:
        """v [N, P]; nan are the patches that are not looked at. clipped: values at which pixels of 8 bits saturate;
        patches that touch them in part are nan."""
        size = int(np.prod(pixels.shape[1:]))
        if self.side == 0:
            flats = (part.reshape(len(part), -1) for part in blocks(pixels, size))
            mean = 0 if self.mean is None else self.mean
            return np.concatenate([(((flat - mean) @ self.kept) ** 2).mean(-1, keepdims=True) for flat in flats])
        parts = []
        for part in blocks(pixels, patches_in(pixels.shape, self.side) * pixels.shape[1] * self.side**2):
            values, ends = coefficients(part, self.side)
            parts.append(((values[..., self.kept] ** 2).mean(-1), values[..., 0].copy(), _touched(ends, clipped)))
        return self.looked_at(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def looked_at(self, v: Array, constant: Array, touched: Array) -> Array:
        """v [N, P] of patches with these constant coefficients, nan where they are not looked at; all of them nan where
        saturation takes a part of those at one end of brightness away, and so chooses by their noise."""
        inside = np.ones(v.shape, bool)
        if self.shades is not None:
            inside = (constant >= self.shades[0]) & (constant <= self.shades[1])
        elif self.share:
            dark = np.sign(self.share) * constant
            inside = dark <= np.quantile(dark, abs(self.share), axis=1, keepdims=True)
        if self.at_an_end and touched[inside].sum() > _TOUCHED * inside.sum():
            inside = np.zeros(v.shape, bool)
        return np.where(inside & ~touched, v, np.nan)

    @property
    def at_an_end(self) -> bool:
        """Whether patches are chosen by their brightness."""
        return self.shades is not None or self.share != 0

    @property
    def dof(self) -> int:
        return self.kept.shape[-1] if self.side else int(self.kept.shape[1])

    @property
    def below(self) -> float:
        """Share of the law of smooth patches, or images, that is used; 1: all, their mean."""
        if self.at_an_end or (self.side == 0 and self.mean is None):
            return 1.0
        return BELOW if self.side else _BELOW_OF_PIXELS


def _touched(ends: Array, clipped: tuple[float, float] | None) -> Array:
    """Patches [N, P] that saturate in part."""
    if clipped is None:
        return np.zeros(ends.shape[:-1], bool)
    return ((ends[..., 0] <= clipped[0]) | (ends[..., 1] >= clipped[1])) & (ends[..., 0] != ends[..., 1])


def _sides(pixels: Array) -> list[int]:
    return [s for s in SIDES if s <= min(pixels.shape[-2:]) // 2 or s == 2]


def _quiet(squares: Array) -> list[Array]:
    """Which coefficients are quiet, in several numbers, by their squares in patches [N, P, K]."""
    size = squares.shape[-1]
    order = np.argsort([np.median(squares[..., k]) for k in range(size)], kind="stable")
    return [order[:m] for m in sorted({max(_LEAST_DOF, min(int(size * x), size - 1)) for x in SHARES})]


Seen = Iterator[tuple[Candidate, Array]]
"""Ways of seeing the level, each with the energies that it sees."""


def _of_patches(pixels: Array, clipped: tuple[float, float] | None, by_image: bool) -> Seen:
    """Ways that fit images [N, C, H, W], by patches. by_image: the darkest and brightest ones are those of each image,
    not those of all."""
    for side in _sides(pixels):
        squares, ends = coefficients(pixels, side)
        constant, touched = squares[..., 0].copy(), _touched(ends, clipped)
        limits = np.quantile(constant, ENDS), np.quantile(constant, 1 - np.array(ENDS))
        np.square(squares, out=squares)
        for kept in _quiet(squares):
            plain, v = Candidate(side, kept), _mean_of(squares, kept)
            yield plain, plain.looked_at(v, constant, touched)
            others = kept[kept != 0]  # without the constant, which patches are chosen by
            if not len(others):
                continue
            v = v if len(others) == len(kept) else _mean_of(squares, others)
            for share, dark, bright in zip(ENDS, *limits, strict=True):
                if by_image:
                    ends_of = Candidate(side, others, share=share), Candidate(side, others, share=-share)
                else:
                    ends_of = (
                        Candidate(side, others, shades=(-np.inf, float(dark))),
                        Candidate(side, others, shades=(float(bright), np.inf)),
                    )
                for at_end in ends_of:
                    yield at_end, at_end.looked_at(v, constant, touched)


def _mean_of(squares: Array, kept: Array) -> Array:
    """Mean over some of the squares [N, P, K] of each patch."""
    size = squares.shape[1] * squares.shape[2]
    return np.concatenate([part[..., kept].mean(-1) for part in blocks(squares, size)])


def _of_whole_images(pixels: Array, n: int) -> list[Candidate]:
    """Ways that fit images [N, C, H, W] which agree in pixels or directions: as many ways as n of such images allow."""
    _, c, h, w = pixels.shape
    out = []
    size, flat = c * h * w, pixels.reshape(len(pixels), -1)
    counts = [m for m in _DIRECTIONS if m <= size // 4]
    if size <= _WHOLE and n >= 4 * size:
        _, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
        out += [Candidate(0, vectors[:, :m]) for m in counts]
    if n >= LEAST_PATCHES:
        centre, scale = flat.mean(0), np.sqrt(len(flat) / (len(flat) + 1))  # of others, about a mean that has noise
        for order in _orders(centre, ((flat - centre) ** 2).mean(0), len(flat)):
            for m in counts:
                one_hot = np.zeros((size, m))
                one_hot[order[:m], np.arange(m)] = scale
                out.append(Candidate(0, one_hot, centre))
    return out


def _orders(mean: Array, variance: Array, n: int) -> list[Array]:
    """Pixels [D], first those that n images agree in: by their variance, and by the sum of it and their mean, or minus
    it, each in its standard error, var/sqrt(n/2) and sqrt(var/n) at the least variances (here times their variance)."""
    least = np.sort(variance)[:_FEWEST].mean()
    spread, rise = variance * np.sqrt(n / 2), np.sqrt(n * least) * mean
    return [np.argsort(score, kind="stable") for score in (spread, spread + rise, spread - rise)]


def _seen_by_others(pixels: Array) -> Seen:
    """Ways that fit whole images, each with what those of one half of them see of the other: what fits images sees too
    little of their own noise."""
    halves = pixels[::2], pixels[1::2]
    n = len(halves[1])
    if not n:
        return
    of_half = [_of_whole_images(half, n) for half in halves]
    for candidate, one, other in zip(_of_whole_images(pixels, n), *of_half, strict=True):
        yield candidate, np.concatenate([one.energies(halves[1]), other.energies(halves[0])])


def _measured(ordered: Array, candidate: Candidate) -> tuple[float, float]:
    """(s^2, share) of energies by ascending size."""
    total = len(ordered)
    if total < (1 if candidate.below < 1 or not candidate.side else LEAST_PATCHES):
        return float("nan"), 0.0
    if candidate.below == 1:
        return float(ordered.mean()), 1.0
    if not candidate.side:  # the root of a few images is not smooth enough for a jackknife
        below = max(int(candidate.below * total), 1)
        return float(ordered[:below].mean()) / null(candidate.dof, candidate.below)[1], 1.0
    return root(ordered, candidate.dof, least_patches(total), candidate.below)


def measured(v: Array, candidate: Candidate) -> tuple[float, float]:
    """(s^2, share of the patches that are only noise) of energies [N, P]; nan are left out."""
    known = v[np.isfinite(v)]
    s2, share = _measured(np.sort(known), candidate)
    return s2, share * len(known) / v.size if candidate.at_an_end else share


def _jackknife(v: Array, candidate: Candidate) -> float:
    """Standard error of s^2 over groups of images."""
    k = min(_GROUPS, len(v))
    if k < 2:
        return float("inf")
    known = np.isfinite(v)
    flat, groups = v[known], np.broadcast_to((np.arange(len(v)) % k)[:, None], v.shape)[known]
    order = np.argsort(flat)
    flat, groups = flat[order], groups[order]
    without = np.array([_measured(flat[groups != g], candidate)[0] for g in range(k)])
    error = float(np.sqrt((k - 1) / k * ((without - without.mean()) ** 2).sum()))
    return error if np.isfinite(error) else float("inf")


def _half(chosen_on: Array, seen: Array, clipped: tuple[float, float] | None) -> tuple[float, float, float, float]:
    """(s^2, its standard error, texture that it keeps, share) on `seen`, by the way that is least on `chosen_on`; the
    texture is that of both halves, of which one does not share the error of s^2."""
    best, way, left = float("inf"), Candidate(2, np.arange(3)), 0.0
    for ways in (_of_patches(chosen_on, clipped, by_image=False), _seen_by_others(chosen_on)):
        for candidate, v in ways:
            s2, _ = measured(v, candidate)
            if not s2 < best:  # nan, or beyond another's upper end
                continue
            error = _jackknife(v, candidate)
            if candidate.side and candidate.below < 1:  # few images left out keep a root that half of them do not have
                one, other = measured(v[::2], candidate)[0], measured(v[1::2], candidate)[0]
                error = max(error, abs(one - other) / 2) if np.isfinite(one - other) else np.inf
            upper = s2 + _CAUTION * error
            if upper < best:
                best, way, left = upper, candidate, _left(v, candidate, s2)
    v = way.energies(seen, clipped)
    s2, share = measured(v, way)
    return s2, _jackknife(v, way), (left + _left(v, way, s2)) / 2, share


def _left(v: Array, candidate: Candidate, s2: float) -> float:
    """Texture that a root s^2 of energies [N, P] shows to have kept; 0 for other ways, which show none."""
    if not candidate.side or candidate.below == 1:
        return 0.0
    return texture(v[np.isfinite(v)], candidate.dof, s2)


def level_of_set(pixels: Array, clipped: tuple[float, float] | None = None) -> Level:
    """The one level of images [N, C, H, W] float64, N >= 4, that share it.

    clipped: values at which pixels saturate. The choice of a way does not see texture of about one standard error,
    which raises the level: of one error of the half that it is made on, which is sqrt(2) errors of the mean of both
    halves, and that mean keeps it. An interval from -(t + sqrt(2)) to t errors, t the 90 % quantile of Student's law,
    covers 90 to 95 % for any such bias from 0 to sqrt(2) errors (cf. Armstrong & Kolesar 2018). Where the roots show
    that they keep more (`roots.texture`), the interval reaches down by that instead. Texture below `CLEAN` everywhere
    cannot be told from noise at all, so in variance it reaches down by its square, too.
    """
    from scipy.special import stdtrit

    order = np.random.default_rng(0).permutation(len(pixels))
    a, b = pixels[np.sort(order[::2])], pixels[np.sort(order[1::2])]
    known = [h for h in (_half(a, b, clipped), _half(b, a, clipped)) if np.isfinite(h[0])]
    if not known:
        return Level(float("nan"), 0.0, float("nan"), 0.0)
    s2 = float(np.mean([h[0] for h in known]))
    se = float(np.sqrt(sum(h[1] ** 2 for h in known))) / len(known)
    apart = abs(known[0][0] - known[-1][0]) / 2
    if apart > _APART * se:  # two ways that differ more than either says of itself
        se = apart
    freedom = len(known) * (min(_GROUPS, len(b)) - 1)
    reach = float(stdtrit(max(freedom, 1), 0.9)) * se
    unseen = max(_UNSEEN * np.sqrt(len(known)) * se, float(np.mean([h[2] for h in known])))
    low, high = (float(np.sqrt(max(x, 0.0))) for x in (s2 - reach - unseen - CLEAN**2, s2 + reach))
    return Level(float(np.sqrt(s2)), low, high, float(np.mean([h[3] for h in known])))


def way_of_images(pixels: Array, clipped: tuple[float, float] | None = None) -> Candidate:
    """How the level of each of these images by itself is best seen: least in the mean and spread of its logarithm."""
    best, way = float("inf"), Candidate(2, np.arange(3))
    for ways in (_of_patches(pixels, clipped, by_image=True), _seen_by_others(pixels)):
        for candidate, v in ways:
            s2 = np.array([_of_one(row, candidate)[0] for row in v])
            if np.isnan(s2).mean() > 0.05:
                continue
            logs = 0.5 * np.log(np.maximum(s2[np.isfinite(s2)], (CLEAN / 4) ** 2))
            worst = float(logs.mean() + Z_HIGH * logs.std())
            if worst < best:
                best, way = worst, candidate
    return way


def _of_one(row: Array, candidate: Candidate) -> tuple[float, float]:
    """(s^2, share) of the energies of one image."""
    known = row[np.isfinite(row)]
    if not len(known):
        return float("nan"), 0.0
    if candidate.at_an_end or candidate.side == 0:
        return float(known.mean()), 1.0
    return smallest_root(known, candidate.dof, least_patches(len(known)))


def levels_of_images(
    pixels: Array, candidate: Candidate, clipped: tuple[float, float] | None = None, shared: Level | None = None
) -> list[Level]:
    """The level of each image by itself.

    shared: the level that all of them have. Then the interval is that of the errors seen on these images: value/r, with
    r from 5 to 95 % of value/shared. Else, and for few images, it is that of noise of the same shape that is measured
    alike, and reaches 15 % further down, for the texture of one image.
    """
    v = candidate.energies(pixels, clipped)
    low, high = _spread(pixels.shape[1:], candidate)
    out = []
    for row in v:
        s2, share = _of_one(row, candidate)
        known = int(np.isfinite(row).sum())
        widen = 1 / np.sqrt(max(share, 1 / max(known, 1)))
        s = float(np.sqrt(s2))
        least, most = (s * float(np.exp(x * widen)) for x in (low, high))
        out.append(Level(s, least * (1 - _TEXTURE_OF_ONE), most, share))
    ratios = np.array([x.value for x in out if np.isfinite(x.value) and x.value > 0])
    if shared is None or len(ratios) < _LEAST_SHARING or not shared.value > 0:
        return out
    small, large = np.quantile(ratios / shared.value, [0.05, 0.95])
    return [replace(x, low=x.value / float(large), high=x.value / float(small)) for x in out]


def _spread(shape: tuple[int, ...], candidate: Candidate) -> tuple[float, float]:
    """ln(s/estimate) at 5 and 95 % for images of noise alone: what an interval reaches down and up."""
    if candidate.side == 0:
        from scipy.stats import chi2

        m = candidate.dof
        return tuple(float(0.5 * np.log(m / chi2.ppf(q, m))) for q in (0.95, 0.05))  # type: ignore[return-value]
    return _simulated_spread(shape, candidate.side, tuple(candidate.kept.tolist()), candidate.share)


@functools.lru_cache(maxsize=32)
def _simulated_spread(shape: tuple[int, ...], side: int, kept: tuple[int, ...], share: float) -> tuple[float, float]:
    """`_spread` from images of noise; of large ones from a part: it falls with the root of the patches' number."""
    part = (shape[0], *(min(n, _ALONG * step_of(side)) for n in shape[1:]))
    candidate, rng = Candidate(side, np.array(kept), share=share), np.random.default_rng(0)
    logs = [
        -0.5 * np.log(_of_one(candidate.energies(rng.standard_normal((1, *part)))[0], candidate)[0])
        for _ in range(_SIMULATED)
    ]
    low, high = np.nanquantile(logs, [0.05, 0.95]) * np.sqrt(patches_in(part, side) / patches_in(shape, side))
    return float(low), float(high)
