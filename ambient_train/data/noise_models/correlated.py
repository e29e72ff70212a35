"""Stationary correlated noise: S is diagonal in Fourier space.

The noise of every image has one power spectrum, the variance of each frequency relative to their mean: 1 everywhere is
white. sigma_n^2 is the variance of a pixel. The noise goes round the edges (periodic), as the discrete Fourier
transform does: for noise whose correlation is short against the image only pixels near the edges differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.arrays import load_npy

if TYPE_CHECKING:
    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseModel


_ALIKE = 1e-4
"""Difference of variances at f and -f, relative to the largest of all, that rounding may leave."""


def smoothed(width: float, shape: tuple[int, int]) -> np.ndarray:
    """Spectrum [H, W//2 + 1] of white noise after a Gaussian filter of standard deviation `width` pixels, mean 1.

    lambda(f) ~ exp(-(2 pi |f| width)^2), f in cycles a pixel: neighbours at distance d have correlation
    exp(-d^2/(4 width^2)).
    """
    height, side = shape
    f2 = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(side)[None, :] ** 2
    return relative_spectrum(np.exp(-((2 * math.pi * width) ** 2) * f2), shape, "the spectrum")


def relative_spectrum(power: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    """float32 [C or 1, H, W//2 + 1] of mean 1 over all frequencies, from [..., H, W] or half of it, of any scale.

    A whole plane must be that of real noise, equal at f and -f. Raises DataError naming `where` for other shapes,
    values that are not finite or negative, and a spectrum that is 0.
    """
    height, width = shape
    half = width // 2 + 1
    wide = np.asarray(power, np.float64)
    wide = wide[None] if wide.ndim == 2 else wide
    if wide.ndim != 3 or wide.shape[1] != height or wide.shape[2] not in (width, half):
        raise DataError(
            f"{where}: a spectrum of shape {np.asarray(power).shape} for images of {width} x {height}; it must be "
            f"[{height}, {half}] as numpy.fft.rfft2 has it, or [{height}, {width}], a channel first where they differ"
        )
    if not (np.isfinite(wide).all() and (wide >= 0).all() and wide.any()):
        raise DataError(f"{where}: a spectrum holds variances: finite, >= 0, and not 0 everywhere")
    whole = wide.shape[2] == width and width != half
    own = wide if whole else wide[:, :, [0] if width % 2 else [0, half - 1]]  # columns that hold both f and -f
    opposite = np.roll(own[:, ::-1, ::-1] if whole else own[:, ::-1], 1, axis=(1, 2) if whole else 1)
    if np.abs(own - opposite).max() > _ALIKE * wide.max():
        raise DataError(f"{where}: a spectrum of real noise is the same at f and -f, this one is not")
    wide = wide[:, :, :half]
    weights = np.full(half, 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    mean = (wide * weights).sum(axis=(1, 2), keepdims=True) / (height * width)
    if not (mean > 0).all():
        raise DataError(f"{where}: the spectrum of a channel is 0 everywhere")
    return (wide / mean.mean()).astype(np.float32)


@dataclass(frozen=True)
class Correlated:
    """The kind; methods as in `_base`."""

    parameters = "W, of white noise smoothed by a Gaussian of W pixels, or FILE.npy, a power spectrum [H, W//2 + 1]"

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        try:
            width = float(argument)
        except ValueError:
            if not argument:
                raise UsageError(f"noise 'correlated' needs parameters: correlated:{self.parameters}") from None
            path = Path(argument).expanduser()
            spectrum = relative_spectrum(load_npy(path), shape[1:], str(path))
            if len(spectrum) not in (1, shape[0]):
                raise UsageError(f"{path}: spectra of {len(spectrum)} channels for images of {shape[0]}") from None
            return _model(spectrum, shape[2])
        if not (math.isfinite(width) and 0 < width < min(shape[1:]) / 4):
            raise UsageError(
                f"noise 'correlated:{argument}': the width must be above 0 and below a quarter of the image, in pixels"
            )
        return _model(smoothed(width, shape[1:]), shape[2])

    def of_images(self, images: ImageSet) -> NoiseModel | None:
        return None if images.spectrum is None else _model(images.spectrum, images.images.shape[-1])


def _model(spectrum: np.ndarray, width: int) -> NoiseModel:
    import torch

    from ambient_train.data.noise_models._gaussian import Stationary  # here, so that the table needs no torch

    return Stationary(torch.from_numpy(spectrum)[None], width)


MEMBER = Correlated()
