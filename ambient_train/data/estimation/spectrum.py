"""The power spectrum of noise, from images that hold nothing else: dark frames, empty fields, differences of pairs.

    P(f) = 1/(H W (N - 1)) sum_i |F(n_i - mean_j n_j)(f)|^2

over N images; taking the mean image out removes what they share (a fixed pattern), and N - 1 makes up for it. Each
value scatters by 1/sqrt(N - 1) of itself, sqrt(2) times that where f = -f.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes

LEAST = 8
"""Images below which every value scatters by more than a third."""


def noise_spectrum(images: np.ndarray) -> np.ndarray:
    """P, float64 [C, H, W//2 + 1] in squares of the images' units, of images [N, C, H, W] without content.

    Its mean over all frequencies is the variance of a pixel.
    """
    count, _, height, width = images.shape
    centred = np.asarray(images, np.float64) - images.mean(axis=0, dtype=np.float64)
    power = np.abs(np.fft.rfft2(centred)) ** 2
    return power.sum(axis=0) / (height * width * (count - 1))


def check_spectrum_file(path: Path, overwrite: bool) -> None:
    """Raise UsageError for a file that would not be read or is there already, DataError where there is no folder."""
    if path.suffix.lower() != ".npy":
        raise UsageError(f"--spectrum {path}: the name must end in .npy, as STEM.spectrum.npy beside the images")
    if path.exists() and not overwrite:
        raise UsageError(f"--spectrum {path} exists: give another name, or --overwrite")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such directory")


def write_spectrum(path: Path, images: np.ndarray, spec: str) -> None:
    """`noise_spectrum` of the images as a .npy. Raises DataError for too few of them."""
    if len(images) < LEAST:
        raise DataError(f"{spec}: a spectrum needs {LEAST} images without content or more, there are {len(images)}")
    data = io.BytesIO()
    np.save(data, noise_spectrum(images))
    atomic_write_bytes(path, data.getvalue())
