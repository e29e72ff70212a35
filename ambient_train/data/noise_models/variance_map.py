"""Independent noise with a variance for each pixel: S is diagonal.

y_p = x_p + s_p z_p with a known standard deviation s_p > 0 of every pixel p. sigma_n^2 is the mean of s_p^2 over the
pixels of an image and the map is kept relative to it, so that an image of strength sigma_n has s_p = sigma_n w_p,
mean w_p^2 = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.arrays import load_npy

if TYPE_CHECKING:
    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseModel


def relative_map(deviation: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(w float32 [N, C, H, W], sigma_n float32 [N]) of maps of standard deviations [N, C, H, W].

    A map that is 0 in every pixel is a clean image, w = 1. Raises DataError naming `where` for a pixel without finite
    positive noise: what is missing has no level, and what is exact leaves no level at which the image could be used.
    """
    wide = np.asarray(deviation, np.float64)
    flat = wide.reshape(len(wide), -1)
    clean = (flat == 0).all(axis=1)
    bad = ~(np.isfinite(flat) & (flat > 0))
    bad[clean] = False
    if bad.any():
        row, pixel = np.argwhere(bad)[0]
        raise DataError(
            f"{where}: {int(bad.sum()):,} pixels have no finite positive noise, one of image {row} has "
            f"{flat[row, pixel]:g}: a missing pixel has no noise level; fill them, or leave such images out"
        )
    level = np.sqrt((flat**2).mean(axis=1))
    with np.errstate(over="ignore"):
        sigma = level.astype(np.float32)
    if not np.isfinite(sigma).all():
        raise DataError(f"{where}: noise levels beyond what 32-bit floats hold")
    level[clean] = 1.0
    pattern = (wide / level.reshape(-1, 1, 1, 1)).astype(np.float32)
    pattern[clean] = 1.0
    return pattern, sigma


@dataclass(frozen=True)
class VarianceMap:
    """The kind; methods as in `_base`."""

    parameters = "FILE.npy, the deviation of each pixel relative to --sigma, [H, W] or [C, H, W]"

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        if not argument:
            raise UsageError("noise 'variance-map' needs a map: give variance-map:FILE.npy, [H, W] or [C, H, W]")
        path = Path(argument).expanduser()
        array = load_npy(path)
        if array.shape not in (shape, shape[1:], (1, *shape[1:])):
            raise UsageError(f"{path}: a map of shape {array.shape} for images of {shape}")
        if not array.any():
            raise UsageError(f"{path}: a map that is 0 everywhere is no noise")
        return _model(relative_map(array.reshape(1, -1, *shape[1:]), str(path))[0])

    def of_images(self, images: ImageSet) -> NoiseModel | None:
        return None if images.pattern is None else _model(images.pattern)


def _model(pattern: np.ndarray) -> NoiseModel:
    import torch

    from ambient_train.data.noise_models._gaussian import Mapped  # here, so that the table can be asked without torch

    return Mapped(torch.from_numpy(np.square(pattern, dtype=np.float32)))


MEMBER = VarianceMap()
