"""The ambient denoising loss, up to the weight that a member of the table gives it.

For an image y with noise of strength sigma_n (0 = clean) and a diffusion level sigma above it, with x_t, y_hat =
E[y | x_t] and the unbiased target for x as the noise model has them,

    L = w ||y_hat - y||^2  or  w ||D - target||^2,    EDM's w(sigma) = (sigma^2 + sd^2)/(sigma sd)^2 where sigma_n = 0

(Daras et al. 2024, arXiv 2411.02780; Karras et al. 2022, arXiv 2206.00364). Every member is EDM's loss exactly for
clean images and has the true denoiser as its minimiser for noisy ones. Functions are pure: randomness and state (V)
come in as arguments. Nothing here imports torch: what a member says of itself can be read before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.data.noise_models._base import NoiseModel
    from ambient_train.diffusion.noise_levels import LevelTable


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """What a loss is a function of."""

    denoised: Tensor
    """D(x_t, sigma) [B, C, H, W]."""
    y: Tensor
    """Images as they are in the data [B, C, H, W]."""
    x_t: Tensor
    """Images at their diffusion level [B, C, H, W]."""
    sigma: Tensor
    """Diffusion levels [B] float64, above the images' `lowest_level`."""
    sigma_n: Tensor
    """Strength of the noise in y [B] float64, 0 = clean."""
    noise: NoiseModel
    """What kind of noise that is."""
    table: LevelTable | None = None
    """Levels of the whole data set; for a loss that compares an image with the others of its level."""
    error: Tensor | None = None
    """V(sigma) = E Var(x_0 | x_t) per pixel [B] float64; given where `Loss.needs_error`."""
    buffer: float = 1.05
    """An image is used at levels above buffer * its lowest one."""
    cap: float = 10.0
    """Largest relative weight of an image."""
    sigma_data: float = 0.5
    """Standard deviation of the clean data, sd above."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A member of the table. Called with `LossInputs`, gives the loss of each image, summed over its pixels: [B]."""

    per_image: Callable[[LossInputs], Tensor]
    """The loss itself."""
    finite_at_lowest_level: bool
    """Whether the loss stays finite as sigma falls to the image's lowest level. One that does not needs a buffer > 1
    and a draw that never reaches that level."""
    needs_error: bool = False
    """Whether V(sigma) is to be tracked during training (see `DenoisingErrorTracker`)."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        return self.per_image(inputs)


def edm_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """w(sigma) = (sigma^2 + sd^2)/(sigma sd)^2 (Karras et al. 2022, Table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def squared_error(x: LossInputs, weight: Tensor, *, clean: bool) -> Tensor:
    """weight ||y_hat - y||^2 [B], or, `clean`, weight ||D - target||^2, an error against the clean image; weight [B]
    float64."""
    return x.noise.squared_error(x.denoised, x.y, x.x_t, x.sigma, x.sigma_n, weight, clean=clean)
