"""Counts: noise whose variance grows with brightness.

v' = g k + read z with k ~ Poisson(v/g): an image x in units of [-1, 1] has brightness v = x + 1, and v' has variance
g v + read^2.
S depends on x, so that no identity of `_base` holds. Counts are therefore transformed where they are read (`:gain=`
behind the path, `data.anscombe`): after that their noise is white, of one level, and this kind is never seen in
training. `ambient data corrupt` writes such noise down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseModel

NAME = "poisson-gaussian"


def counts_of(argument: str, sigma: float) -> tuple[float, float]:
    """(gain, read noise) of noise of level sigma at mid grey, x = 0. Raises UsageError for no read noise."""
    try:
        read = float(argument or 0)
    except ValueError:
        read = math.nan
    if not 0 <= read < sigma:
        raise UsageError(
            f"noise '{NAME}:{argument}': the read noise must be a number from 0 to below --sigma {sigma:g}, which is "
            "the noise of both at mid grey"
        )
    return sigma**2 - read**2, read


@dataclass(frozen=True)
class PoissonGaussian:
    """The kind; see the module."""

    parameters = "READ, the part of --sigma that is read noise; by `data corrupt` only"

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        raise UsageError(
            f"noise '{NAME}' depends on the image: write it down first, with `ambient data corrupt --noise {NAME}:READ`"
        )

    def of_images(self, images: ImageSet) -> NoiseModel | None:
        return None


MEMBER = PoissonGaussian()
