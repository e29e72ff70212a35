"""Magnitudes of complex images, whose noise is Rician: told by a background that follows Rayleigh's law.

    m = |A + n|,        n complex, of deviation s in each part;        E m^2 = A^2 + 2 s^2.

Where A = 0, m has mean s sqrt(pi/2), deviation s sqrt((4 - pi)/2) = .655 s and skewness .631, whatever s is; from
A = 3 s on it is nearly Gaussian of deviation s about A + s^2/(2 A) (Gudbjartsson & Patz 1995). The level of fine detail
is therefore too small in the background, and seems to grow with brightness, as that of a camera's counts does.

Patches count as background by the mean of every other of their pixels, a chessboard, and are looked at in the rest,
which white noise leaves independent of that choice. They are Rayleigh where mean, deviation and skewness fit each
other, neighbours along the diagonals are independent (texture is not), the values are more than a few (those of few
photons lie on a lattice) and the brightest patches have no larger noise than s (as those of counts, or of speckle).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ambient_train.data.estimation.patches import blocks
from ambient_train.data.noise import estimate_noise

Array = np.ndarray
LEAST_SNR = 3.0
"""A/s below which magnitudes are of no use for training: their noise is neither Gaussian nor of mean 0."""
DEVIATION = float(np.sqrt((4 - np.pi) / 2))
"""Deviation of the background over s."""
RATIO = float(np.sqrt((4 - np.pi) / np.pi))
"""Deviation of the background over its mean."""
SKEWNESS = float(2 * np.sqrt(np.pi) * (np.pi - 3) / (4 - np.pi) ** 1.5)
_KURTOSIS = 3.245  # of Rayleigh's law
_SIDE, _SHARES = 6, (0.2, 0.1, 0.05)
_FEWEST, _LATTICE, _ZEROS = 1000, 32, 0.003
"""Values that are looked at; least number of different ones; share of them that is 0, where noise is clipped."""
_RATIO_WITHIN, _SKEWNESS_WITHIN, _CORRELATED, _ERRORS = 0.03, 0.15, 0.15, 2.0
"""What is allowed for beside standard errors: a few patches of the object among those of the background."""
_RATIO_ERROR, _SKEWNESS_ERROR = 0.37, 2.5
"""Standard errors of both from n values of Rayleigh's law, times sqrt(n)."""
_MEDIAN, _FAR = float(np.sqrt(2 * np.log(2))), 5.0
"""Median of Rayleigh's law over s, and what 4 in a million of it exceed."""
_OBJECT, _LOUDER = 6.0, 1.25
"""Where the object begins, in standard errors of a patch of background; noise there, beyond s, that is of other kinds
(the lower quartile of rough estimates, .8 s)."""
_Z = 1.6448536269514722


@dataclass(frozen=True)
class Rician:
    """sigma: deviation of the real and the imaginary part, with its standard error. snr: median of A/sigma over the
    patches of the object, 0 where none is seen."""

    sigma: float
    stderr: float
    snr: float

    @property
    def interval(self) -> tuple[float, float]:
        """90 %."""
        return self.sigma - _Z * self.stderr, self.sigma + _Z * self.stderr

    @property
    def usable(self) -> bool:
        """Whether the object stands out of the noise so far that it may count as Gaussian."""
        return self.snr >= LEAST_SNR

    def scaled(self, unit: float) -> Rician:
        """Of values in another unit."""
        return replace(self, sigma=self.sigma * unit, stderr=self.stderr * unit)

    def sentence(self) -> str:
        seen = f"a median SNR of {self.snr:.2g}" if self.snr else "no SNR above 1.4"
        text = (
            "the noise is Rician, that of magnitudes of complex images: the background is Rayleigh, of deviation "
            f"0.655 sigma with sigma = {self.sigma:.4g}; what stands out of it has {seen}"
        )
        if not self.usable:
            return (
                f"{text}: do not train on such images, below {LEAST_SNR:g} their noise is neither Gaussian nor of mean "
                "0; give complex images, or their real and imaginary part"
            )
        return (
            f"{text}, where the noise is nearly Gaussian of that sigma; training would still take the background for "
            "Gaussian and learn its brightness: complex images, or their real and imaginary part, are exact"
        )


def rician_of(magnitudes: Array) -> Rician | None:
    """Of images [N, 1, H, W] whose values of 0 are 0; None where they are no magnitudes that show a background."""
    if magnitudes.shape[1] != 1 or min(magnitudes.shape[2:]) < _SIDE or not (magnitudes >= 0).all():
        return None
    patches = np.concatenate([_cut(part) for part in blocks(magnitudes, magnitudes[0].size)])
    patches = patches[patches.any((1, 2))]  # what a scanner leaves out
    if not len(patches):
        return None
    chess = np.indices((_SIDE, _SIDE)).sum(0) % 2 == 0
    shade = patches[:, chess].mean(-1)
    for share in _SHARES:
        found = _rayleigh(patches[shade <= np.quantile(shade, share)], ~chess)
        if found is None:
            continue
        sigma, error = found
        power = (patches**2).mean((1, 2)) / sigma**2 - 2  # (A/s)^2 of a patch, of deviation 2/side in the background
        seen = power > _OBJECT * 2 / _SIDE
        bright = patches[seen & (power >= np.quantile(power[seen], 0.75))] if seen.any() else patches[:0]
        if len(bright) and np.quantile(estimate_noise(bright[:, None]), 0.25) > _LOUDER * sigma:
            return None
        return Rician(sigma, error, float(np.sqrt(np.median(power[seen]))) if seen.any() else 0.0)
    return None


def _cut(images: Array) -> Array:
    """Patches [M, side, side] float64 beside each other, of images [N, 1, H, W]."""
    n, _, height, width = images.shape
    down, across = height // _SIDE, width // _SIDE
    whole = images[:, 0, : down * _SIDE, : across * _SIDE].reshape(n, down, _SIDE, across, _SIDE)
    return whole.transpose(0, 1, 3, 2, 4).reshape(-1, _SIDE, _SIDE).astype(np.float64)


def _rayleigh(patches: Array, at: Array) -> tuple[float, float] | None:
    """(s, its standard error) of patches [M, side, side] whose pixels `at` [side, side] follow Rayleigh's law; None
    where they do not. Patches with a pixel far beyond it, at the edge of an object, are left out."""
    patches = patches[(patches <= _FAR * np.median(patches[:, at]) / _MEDIAN).all((1, 2))]
    values = patches[:, at].reshape(-1)
    n = values.size
    if n < _FEWEST or len(np.unique(values)) < _LATTICE or (values == 0).mean() > _ZEROS:
        return None
    mean, deviation, allowed = float(values.mean()), float(values.std()), _ERRORS / np.sqrt(n)
    skewness = float((((values - mean) / deviation) ** 3).mean())
    diagonal = float(((patches[:, 1:, 1:] - patches[:, :-1, :-1]) ** 2)[:, at[1:, 1:]].mean()) / 2
    if (
        abs(deviation / mean - RATIO) > _RATIO_WITHIN + allowed * _RATIO_ERROR
        or abs(skewness - SKEWNESS) > _SKEWNESS_WITHIN + allowed * _SKEWNESS_ERROR
        or abs(diagonal / deviation**2 - 1) > _CORRELATED + allowed
    ):
        return None
    sigma = deviation / DEVIATION
    return sigma, sigma * float(np.sqrt((_KURTOSIS - 1) / 4 / n))
