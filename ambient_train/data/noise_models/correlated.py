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

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseModel


@dataclass(frozen=True)
class Correlated:
    """The kind; methods as in `_base`."""

    parameters = "W, of white noise smoothed by a Gaussian of W pixels, or FILE.npy, a power spectrum [H, W//2 + 1]"

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        from ambient_theory.shared.npy import load_npy  # here, as all that needs NumPy
        from ambient_train.data.noise_models._numbers import relative_spectrum, smoothed

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
