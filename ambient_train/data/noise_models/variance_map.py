"""Independent noise with a variance for each pixel: S is diagonal.

y_p = x_p + s_p z_p with a known standard deviation s_p > 0 of every pixel p. sigma_n^2 is the mean of s_p^2 over the
pixels of an image and the map is kept relative to it, so that an image of strength sigma_n has s_p = sigma_n w_p,
mean w_p^2 = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseModel


@dataclass(frozen=True)
class VarianceMap:
    """The kind; methods as in `_base`."""

    parameters = "FILE.npy, the deviation of each pixel relative to --sigma, [H, W] or [C, H, W]"

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        if not argument:
            raise UsageError("noise 'variance-map' needs a map: give variance-map:FILE.npy, [H, W] or [C, H, W]")
        from ambient_theory.shared.npy import load_npy  # here, as all that needs NumPy
        from ambient_train.data.noise_models._numbers import relative_map

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
    import numpy as np
    import torch

    from ambient_train.data.noise_models._gaussian import Mapped  # here, so that the table can be asked without torch

    return Mapped(torch.from_numpy(np.square(pattern, dtype=np.float32)))


MEMBER = VarianceMap()
