"""Gain and read noise: the line variance = gain v + intercept over the brightness v of smooth patches.

Counts of a camera have variance gain (v - offset) + read^2 (Poisson-Gaussian; Foi et al. 2008). Patches are sorted into
bins of their mean; in each bin the level is that of `roots.smallest_root` over the flattest quarter, by the coarse
coefficients, which noise leaves independent of the fine ones that measure it; a weighted line goes through the bins.
Texture that is left raises the gain: how far the flattest half differs from the quarter is counted with its error. The
offset is not seen by itself: the intercept is read^2 - gain offset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ambient_train.data.estimation.patches import coefficients, fine
from ambient_train.data.estimation.roots import least_patches, smallest_root

Array = np.ndarray
ERRORS, BINS, _LEAST_IN_BIN, _GROUPS = 4.0, 10, 200, 16
_RISE = 1.5
_FLATTEST, _LESS_FLAT = 0.25, 0.5


@dataclass(frozen=True)
class Gain:
    """variance = gain v + intercept, with standard errors, between brightness low and high; all in one unit."""

    gain: float
    gain_stderr: float
    intercept: float
    intercept_stderr: float
    low: float
    high: float

    @property
    def read_noise(self) -> float:
        """Standard deviation where the images are darkest: read noise and what the darkest brightness adds."""
        return float(np.sqrt(self.variance(np.array([self.low]))[0]))

    @property
    def grows(self) -> bool:
        """Whether the noise grows with brightness: beyond four standard errors, and by half in variance or more."""
        least = self.variance(np.array([self.low]))[0]
        most = self.variance(np.array([self.high]))[0]
        return bool(self.gain > ERRORS * self.gain_stderr and most > _RISE * max(least, 0.0))

    def variance(self, v: Array) -> Array:
        """Of noise at brightness v, at least 0."""
        return np.maximum(self.gain * v + self.intercept, 0.0)

    def scaled(self, low: float, unit: float) -> Gain:
        """The same line for values low + (v + 1) unit: gain u, since variance has unit^2 and brightness unit."""
        shift = low + unit
        return Gain(
            self.gain * unit,
            self.gain_stderr * unit,
            self.intercept * unit**2 - self.gain * unit * shift,
            float(np.hypot(self.intercept_stderr * unit**2, self.gain_stderr * unit * shift)),
            low + (self.low + 1) * unit,
            low + (self.high + 1) * unit,
        )

    def sentence(self) -> str:
        text = (
            f"noise grows with brightness v: variance = {self.gain:.4g} v {'+' if self.intercept >= 0 else '-'} "
            f"{abs(self.intercept):.4g} (gain +- {self.gain_stderr:.2g}, seen from {self.low:.4g} to {self.high:.4g})"
        )
        return (
            f"{text}; noise of {self.read_noise:.4g} where it is darkest (read noise); texture can only make the gain "
            "larger, and images of flat fields measure it best"
        )


def gain_of(pixels: Array) -> Gain | None:
    """The line for images [N, C, H, W]; None where it is too short, and of fewer than 12 pixels a side: their patches
    do not tell noise from texture."""
    channels = pixels.shape[1]
    side, kept = fine(channels, (pixels.shape[2], pixels.shape[3]), 3)
    values, _ = coefficients(pixels, side)
    shade = (values[..., 0] / (side * np.sqrt(channels))).reshape(-1)
    energy = (values[..., kept] ** 2).mean(-1).reshape(-1)
    coarse = np.setdiff1d(np.arange(values.shape[-1]), [0, *kept])
    rough = (values[..., coarse] ** 2).sum(-1).reshape(-1)
    if not len(coarse):
        return None
    groups = np.repeat(np.arange(len(pixels)) % min(_GROUPS, len(pixels)), values.shape[1])
    edges = np.unique(np.quantile(shade, np.linspace(0, 1, BINS + 1)))
    if len(edges) < 4:
        return None
    bins = np.clip(np.searchsorted(edges, shade, "right") - 1, 0, len(edges) - 2)
    found = []
    for share in (_FLATTEST, _LESS_FLAT):
        chosen = _flattest(rough, bins, share)
        line = _line(shade[chosen], energy[chosen], bins[chosen], groups[chosen], len(kept))
        if line is None:
            return None
        found.append(line)
    quarter, half = found
    return replace(
        quarter,
        gain_stderr=float(np.hypot(quarter.gain_stderr, half.gain - quarter.gain)),
        intercept_stderr=float(np.hypot(quarter.intercept_stderr, half.intercept - quarter.intercept)),
    )


def _flattest(rough: Array, bins: Array, share: float) -> Array:
    """Which patches are among the flattest of their bin; all of a bin that has few."""
    chosen = np.zeros(len(rough), bool)
    for b in range(int(bins.max()) + 1):
        own = rough[bins == b]
        if len(own):
            wanted = min(max(share, 2 * _LEAST_IN_BIN / len(own)), 1.0)
            chosen[bins == b] = own <= np.quantile(own, wanted)
    return chosen


def _line(shade: Array, energy: Array, bins: Array, groups: Array, m: int) -> Gain | None:
    """The line through the levels of the bins, from mean squares `energy` of m coefficients of patches of brightness
    `shade`; errors by leaving out groups of images. None where fewer than three bins have a level."""
    centre = np.array([shade[bins == b].mean() if (bins == b).any() else np.nan for b in range(int(bins.max()) + 1)])

    def line(rows: Array) -> Array:
        levels, weights = np.full(len(centre), np.nan), np.zeros(len(centre))
        for b in range(len(centre)):
            inside = energy[rows & (bins == b)]
            if len(inside) >= _LEAST_IN_BIN:
                levels[b], share = smallest_root(inside, m, least_patches(len(inside)))
                weights[b] = share * len(inside)
        good = np.isfinite(levels) & (levels > 0)
        if good.sum() < 3:
            return np.full(2, np.nan)
        root = np.sqrt(weights[good]) / levels[good]
        design = np.stack([centre[good], np.ones(good.sum())], -1)
        return np.linalg.lstsq(design * root[:, None], levels[good] * root, rcond=None)[0]

    whole = line(np.ones(len(shade), bool))
    k = int(groups.max()) + 1
    if not np.isfinite(whole).all() or k < 2:
        return None
    without = np.stack([line(groups != g) for g in range(k)])
    if not np.isfinite(without).all():
        return None
    error = np.sqrt((k - 1) / k * ((without - without.mean(0)) ** 2).sum(0))
    seen_at = centre[np.isfinite(centre)]
    return Gain(
        float(whole[0]), float(error[0]), float(whole[1]), float(error[1]), float(seen_at[0]), float(seen_at[-1])
    )
