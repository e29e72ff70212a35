"""Arrays that state the noise of images: one level an image, a map of every pixel, or a power spectrum of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.npy import load_npy
from ambient_train.data.formats import columns
from ambient_train.data.formats.arrays import arranged, as_sigma

if TYPE_CHECKING:
    from ambient_train.data.values import ValueMap

SPECTRUM = "spectrum"
"""Name of the array of an .npz, and ending of the file beside others, that holds the noise's power spectrum."""


@dataclass(frozen=True, eq=False)
class StatedNoise:
    """sigma float32 [N]: level of each image, the root of the mean variance over its pixels, in the images' own units;
    None where nothing is stated. pattern float32 [N, 1 or C, H, W]: deviation of each pixel relative to it, None where
    every image has one level. spectrum float32 [1 or C, H, W//2 + 1], of mean 1, None where the noise is white."""

    sigma: np.ndarray | None = None
    pattern: np.ndarray | None = None
    spectrum: np.ndarray | None = None

    def in_pixels(self, values: ValueMap | None) -> StatedNoise:
        """The same, its levels in units of [-1, 1] where they are in those of values that were mapped.

        Counts have one level, whatever is stated: 0 stays clean. Raises DataError for levels beyond what 32-bit floats
        hold, and for counts whose noise is stated pixel by pixel or is correlated.
        """
        if self.sigma is None or values is None:
            return self
        if values.counts is not None:
            if self.pattern is not None or self.spectrum is not None:
                raise DataError("a gain says how noisy each pixel is, and a map or spectrum of the noise does, too")
            return StatedNoise(np.where(self.sigma > 0, 1 / values.unit, 0).astype(np.float32))
        with np.errstate(over="ignore"):
            sigma = (self.sigma.astype(np.float64) / values.unit).astype(np.float32)
        if not np.isfinite(sigma).all():
            raise DataError(f"noise levels beyond what 32-bit floats hold, of values of range {values.unit:g}")
        return StatedNoise(sigma, self.pattern, self.spectrum)

    def or_counts(self, values: ValueMap | None, count: int, asked: bool) -> StatedNoise:
        """The noise of `count` images; all of them are noisy where values are said to be counts (`asked`) and no level
        is stated."""
        if self.sigma is not None or values is None or values.counts is None or not asked:
            return self
        return StatedNoise(np.ones(count, np.float32))

    def notes(self) -> tuple[str, ...]:
        """A sentence on noise that is not white, or none."""
        if self.pattern is not None and self.sigma is not None:
            noisy = self.pattern[self.sigma > 0]
            with np.errstate(over="ignore"):
                spread = float((noisy.max(axis=(1, 2, 3)) / noisy.min(axis=(1, 2, 3))).max(initial=1))
            return (
                f"the noise of each pixel is stated: within an image its deviation differs up to {spread:.3g} times; "
                "sigma of an image is the root of its mean variance",
            )
        if self.spectrum is not None:
            return (
                f"the noise is correlated, by a power spectrum from {self.spectrum.min():.3g} to "
                f"{self.spectrum.max():.3g} of its mean; sigma is the deviation of a pixel",
            )
        return ()


def as_noise(array: np.ndarray, shape: tuple[int, int, int, int], where: str) -> StatedNoise:
    """Levels of images of `shape` (N, C, H, W): one number, one an image, or one a pixel, [N, H, W] or [N, C, H, W].

    Maps that are flat in every image are levels. Raises DataError for other shapes, and for pixels of a noisy image
    without finite positive noise.
    """
    from ambient_train.data.noise_models._numbers import relative_map

    count, channels, height, width = shape
    if array.ndim < 3 or array.size <= count or array.shape[0] != count:
        return StatedNoise(as_sigma(array, count, where))
    maps = arranged(array, where)
    if maps.shape[1] not in (1, channels) or maps.shape[2:] != (height, width) or maps.dtype.kind not in "uif":
        raise DataError(
            f"{where}: noise levels of {array.dtype} and shape {array.shape} for images of shape {shape}: give one an "
            f"image, an array of {count} numbers, or one a pixel"
        )
    pattern, sigma = relative_map(maps, where)
    return StatedNoise(sigma, None if np.ptp(pattern) < 1e-6 else np.ascontiguousarray(pattern))


def as_deviation(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """The standard deviations that an array called `name` (see `columns.NOISE_NAMES`) states: its numbers, or the root
    of variances or of inverse ones.

    Raises DataError for variances that are negative or not finite, and for weights of 0.
    """
    what, _ = columns.NOISE_NAMES[columns.plain(name)]
    if what == columns.DEVIATION or array.dtype.kind not in "uif":
        return array
    stated = array.astype(np.float64)
    missing = ~(stated >= 0) | ((stated == 0) if what == columns.INVERSE else ~np.isfinite(stated))
    if missing.any():
        raise DataError(
            f"{where}: {int(missing.sum()):,} of {stated.size:,} numbers are no {what} of noise (above 0, and finite); "
            "a missing pixel has no noise level: fill them, or leave such images out"
        )
    return np.sqrt(stated) if what == columns.VARIANCE else 1 / np.sqrt(stated)


def read_from(name: str, where: str) -> str:
    """A sentence on levels that are read under a `name` of the table. where: as in `the array std`."""
    kind = columns.NOISE_NAMES[columns.plain(name)][0]
    return f"noise levels are read from {where}" + f", as {kind}" * (kind != columns.DEVIATION)


def with_spectrum(
    noise: StatedNoise, array: np.ndarray | None, shape: tuple[int, int, int, int], where: str
) -> StatedNoise:
    """The noise with its power spectrum. Raises DataError for one that does not fit, or beside maps or no levels."""
    from ambient_train.data.noise_models._numbers import relative_spectrum

    if array is None:
        return noise
    if noise.pattern is not None:
        raise DataError(f"{where}: noise has either a map of its pixels or a spectrum, and both are stated")
    if noise.sigma is None or not noise.sigma.any():
        raise DataError(f"{where}: a spectrum, but no image has a noise level: state `sigma`, one an image")
    spectrum = relative_spectrum(array, shape[2:], where)
    if len(spectrum) not in (1, shape[1]):
        raise DataError(f"{where}: spectra of {len(spectrum)} channels for images of {shape[1]}")
    return StatedNoise(noise.sigma, None, None if np.ptp(spectrum) < 1e-6 else spectrum)


def noise_beside(
    path: Path, stem: str, shape: tuple[int, int, int, int], inside: StatedNoise
) -> tuple[StatedNoise, tuple[str, ...]]:
    """What `<stem>.sigma.npy` (or another of `columns.NOISE_NAMES`) and `<stem>.spectrum.npy` beside a file state, else
    what is stated inside it; and a sentence where that is another file or replaces what is inside."""
    noise, said = inside, tuple[str, ...]()
    files = {name: file for name in columns.NOISE_NAMES if (file := path.with_name(f"{stem}.{name}.npy")).is_file()}
    arrays = {name: load_npy(file) for name, file in files.items()}
    name = columns.pick_noise({name: array.shape for name, array in arrays.items()}, shape)
    if name is not None:
        noise = as_noise(as_deviation(arrays[name], name, str(files[name])), shape, str(files[name]))
        if inside.sigma is not None:
            said = (read_from(name, f"{files[name].name} beside the file and not from inside it"),)
        elif name != "sigma":
            said = (read_from(name, files[name].name),)
    spectrum = path.with_name(f"{stem}.{SPECTRUM}.npy")
    return (with_spectrum(noise, load_npy(spectrum), shape, str(spectrum)) if spectrum.is_file() else noise), said


def resized(noise: StatedNoise, old: int, new: int, spec: str) -> StatedNoise:
    """The noise after averaging blocks of r x r pixels, r = old/new.

        white: sigma/r.    map: s'^2 = sum over the block of s^2, /r^4.    spectrum: that of the averaged, thinned
        noise.

    Raises DataError where new does not divide old: overlapping averages would correlate neighbouring pixels. Images
    without noise stay without, at every size.
    """
    sigma = noise.sigma
    if sigma is None or old == new:
        return noise
    if old % new and not sigma.any():
        return StatedNoise(sigma)
    if old % new:
        raise DataError(
            f"{spec}: resizing noisy images from {old} to {new} would correlate the noise of neighbouring pixels; "
            f"choose a resolution that divides {old}"
        )
    r = old // new
    if noise.pattern is not None:
        n, c = noise.pattern.shape[:2]
        squares = np.square(noise.pattern, dtype=np.float64).reshape(n, c, new, r, new, r).mean(axis=(3, 5))
        level = np.sqrt(squares.mean(axis=(1, 2, 3)))
        pattern = (np.sqrt(squares) / level.reshape(-1, 1, 1, 1)).astype(np.float32)
        return StatedNoise((sigma * level / r).astype(np.float32), pattern)
    if noise.spectrum is not None:
        return _thinned(noise.spectrum, sigma, old, r)
    return StatedNoise((sigma / np.float32(r)).astype(np.float32))


def _thinned(spectrum: np.ndarray, sigma: np.ndarray, old: int, r: int) -> StatedNoise:
    """Box filter of r x r pixels, then every r-th: the covariance at whole steps of r is that of the new noise."""
    box = np.zeros(old)
    box[:r] = 1 / r
    gain = np.abs(np.fft.fft(box)) ** 2
    filtered = spectrum.astype(np.float64) * gain[:, None] * gain[: old // 2 + 1]
    covariance = np.fft.irfft2(filtered, s=(old, old))[:, ::r, ::r]
    power = np.maximum(np.fft.rfft2(covariance).real, 0)
    variance = covariance[:, 0, 0].mean()
    return StatedNoise((sigma * np.sqrt(variance)).astype(np.float32), None, (power / variance).astype(np.float32))
