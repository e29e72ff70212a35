"""Is the noise white? Its spectrum over the coefficients of smooth patches, and the correlation at lag 1 that fits it.

White noise has one variance in all coefficients of a patch (`patches`). Noise of correlation rho_d, rho_a with the
neighbours below and beside has

    E[(b_k . n)^2] = s^2 (1 + A_k . (rho_d, rho_a)),        A_k from the basis function b_k alone,

to first order in what lies beyond one pixel. Smooth patches are those whose sum of m squares is below c s^2, the median
of s^2 chi^2_m. There the mean square of a coefficient is k + a A_k . rho with

    k = 2 P(chi^2_{m+2} < c),    a = 2 P(chi^2_{m+4} < c)

(the mean, and the covariances of squares within the ball). A least-squares fit gives rho; its error is that of a
jackknife over images. Texture looks like positive correlation, so small values are not called so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ambient_train.data.estimation.level import BELOW, least_patches, null, smallest_root
from ambient_train.data.estimation.patches import coefficients, fine, lags

Array = np.ndarray
VISIBLE, ERRORS = 0.2, 3.0
"""A correlation is flagged beyond this value and so many of its standard errors."""
_GROUPS = 16


@dataclass(frozen=True)
class Whiteness:
    """down, across: correlation with the neighbouring pixel, and their standard errors. spectrum: pairs of (spatial
    frequency in cycles a pixel, variance relative to the mean of all) by ascending frequency."""

    down: float
    across: float
    down_stderr: float
    across_stderr: float
    spectrum: tuple[tuple[float, float], ...]

    @property
    def white(self) -> bool:
        """Whether neither correlation is flagged."""
        pairs = ((self.down, self.down_stderr), (self.across, self.across_stderr))
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
    squares = values[..., kept] ** 2
    v = squares.mean(-1)
    s2, _ = smallest_root(v.reshape(-1), len(kept), least_patches(v.size))
    if not np.isfinite(s2) or s2 <= 0 or len(kept) < 3:
        return None
    smooth = v <= null(len(kept))[0] * s2
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

    every = np.ones(len(pixels), bool)
    rho = fit(every)
    groups = np.arange(len(pixels)) % min(_GROUPS, len(pixels))
    k = groups.max() + 1
    if k < 2:
        return None
    without = np.stack([fit(groups != g) for g in range(k)])
    error = np.sqrt((k - 1) / k * ((without - without.mean(0)) ** 2).sum(0))
    energy = sums.sum(0) / counts.sum()
    return Whiteness(
        float(rho[0]),
        float(rho[1]),
        float(error[0]),
        float(error[1]),
        _by_frequency(energy, kept, pixels.shape[1], side),
    )


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
