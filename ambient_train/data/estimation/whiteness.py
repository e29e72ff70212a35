"""Is the noise white? Its spectrum over the coefficients of smooth patches, and the correlation at lag 1 that fits it.

White noise has one variance in all coefficients of a patch (`patches`). Noise of correlation rho_d, rho_a with the
neighbours below and beside has

    E[(b_k . n)^2] = s^2 (1 + A_k . (rho_d, rho_a)),        A_k from the basis function b_k alone,

to first order in what lies beyond one pixel. Patches are looked at where texture adds least: all of them, or the
darkest or the brightest, which their mean tells, a coefficient that is independent of the others. Smooth ones among
them are those whose sum of m squares is below c s^2, with P(chi^2_m < c) = 0.9. There the mean square of a coefficient
is k + a A_k . rho with

    k = P(chi^2_{m+2} < c)/0.9,    a = P(chi^2_{m+4} < c)/0.9

(the mean, and the covariances of squares within the ball). A least-squares fit gives rho; its error is that of a
jackknife over images. Tested are both correlations, and their mean, in which noise that is alike in both directions is
seen best. Texture looks like positive correlation, so small values are not called so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ambient_train.data.estimation.patches import coefficients, fine, lags
from ambient_train.data.estimation.roots import least_patches, null, smallest_root

Array = np.ndarray
VISIBLE, ERRORS = 0.15, 3.0
"""A correlation is flagged beyond this value and so many of its standard errors."""
BELOW = 0.9
"""Share of the smooth patches that is used."""
_ENDS = (0.1, 0.2, 0.4)
_GROUPS, _CAUTION = 16, 3.0


@dataclass(frozen=True)
class Whiteness:
    """down, across: correlation with the neighbouring pixel; mean: of the two; their standard errors. spectrum: pairs
    of (spatial frequency in cycles a pixel, variance relative to the mean of all) by ascending frequency."""

    down: float
    across: float
    down_stderr: float
    across_stderr: float
    mean_stderr: float
    spectrum: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        return (self.down + self.across) / 2

    @property
    def white(self) -> bool:
        """Whether no correlation is flagged, nor their mean."""
        pairs = ((self.down, self.down_stderr), (self.across, self.across_stderr), (self.mean, self.mean_stderr))
        return not any(abs(rho) > max(VISIBLE, ERRORS * error) for rho, error in pairs)

    def sentence(self) -> str:
        shown = ", ".join(
            f"{name} {rho:.2f} +- {error:.2f}"
            for name, rho, error in (
                ("down", self.down, self.down_stderr),
                ("across", self.across, self.across_stderr),
            )
        )
        if self.white:
            return f"white: correlation with the next pixel {shown}"
        return f"NOT white, or texture that looks like it: correlation with the next pixel {shown}"


def whiteness(pixels: Array) -> Whiteness | None:
    """Of images [N, C, H, W] with one kind of noise; None where there are not enough smooth patches."""
    side, kept = fine(pixels.shape[1], (pixels.shape[2], pixels.shape[3]), 2)
    values, _ = coefficients(pixels, side)
    groups = np.arange(len(pixels)) % min(_GROUPS, len(pixels))
    if len(kept) < 3 or groups.max() < 1:
        return None
    squares = values[..., kept] ** 2
    v = squares.mean(-1)
    found = _least_textured(v, len(kept), values[..., 0], groups)
    if found is None:
        return None
    inside, s2 = found
    smooth = inside & (v <= null(len(kept), BELOW)[0] * s2)
    sums = (squares * smooth[..., None]).sum(1)
    counts = smooth.sum(1)
    design = np.concatenate([np.ones((len(kept), 1)), lags(pixels.shape[1], side)[kept]], 1)
    if np.linalg.matrix_rank(design) < 3:
        return None

    shrunk = _shrinkage(len(kept))

    def fit(rows: Array) -> Array:
        energy = sums[rows].sum(0) / max(counts[rows].sum(), 1)
        solved = np.linalg.lstsq(design, energy, rcond=None)[0]
        return solved[1:] / solved[0] / shrunk if solved[0] > 0 else np.full(2, np.inf)

    rho = fit(np.ones(len(pixels), bool))
    without = np.stack([fit(groups != g) for g in range(groups.max() + 1)])
    down, across, mean = (float(e) for e in _error(np.column_stack([without, without.mean(1)])))
    energy = sums.sum(0) / counts.sum()
    spectrum = _by_frequency(energy, kept, pixels.shape[1], side)
    return Whiteness(float(rho[0]), float(rho[1]), down, across, mean, spectrum)


def _least_textured(v: Array, m: int, constant: Array, groups: Array) -> tuple[Array, float] | None:
    """(which patches [N, P] are looked at, s^2) from mean squares v of m coefficients and the constant ones: of all
    patches, the darkest and the brightest those whose level has the least upper end. groups [N]: of images."""
    group = np.broadcast_to(groups[:, None], v.shape)
    regions = [np.ones(v.shape, bool)]
    for share in _ENDS:
        regions += [constant <= np.quantile(constant, share), constant >= np.quantile(constant, 1 - share)]
    best, found = np.inf, None
    for inside in regions:
        own, of = v[inside], group[inside]
        s2 = _level(own, m)
        if not 0 < s2 < best:
            continue
        upper = s2 + _CAUTION * float(_error(np.array([_level(own[of != g], m) for g in range(groups.max() + 1)])))
        if upper < best:
            best, found = upper, (inside, s2)
    return found


def _level(v: Array, m: int) -> float:
    return smallest_root(v, m, least_patches(len(v)), BELOW)[0]


def _error(without: Array) -> Array:
    """Standard errors of a jackknife: estimates [groups, ...], one group left out of each."""
    k = len(without)
    return np.sqrt((k - 1) / k * ((without - without.mean(0)) ** 2).sum(0))


def _shrinkage(m: int) -> float:
    """a/k: how much of a difference between variances is left among patches below the cut."""
    from scipy.stats import chi2

    cut = chi2.ppf(BELOW, m)
    return float(chi2.cdf(cut, m + 4) / chi2.cdf(cut, m + 2))


def _by_frequency(energy: Array, kept: Array, channels: int, side: int) -> tuple[tuple[float, float], ...]:
    """Mean over coefficients of one frequency: u, v of the cosines are u/2p, v/2p cycles a pixel."""
    u, v = np.mgrid[:side, :side]
    frequency = np.tile(np.hypot(u, v).reshape(-1) / (2 * side), channels)[kept]
    relative = energy / energy.mean()
    return tuple((round(float(f), 4), float(relative[frequency == f].mean())) for f in np.unique(frequency))
