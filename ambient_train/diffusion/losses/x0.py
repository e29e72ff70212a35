"""Error against an unbiased estimate of the clean image.

    L = w(sigma) ||D - target||^2

Every image has EDM's weight at every level, although the estimate of a noisy image scatters without bound as sigma
falls to sigma_n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.losses._base import Loss, LossInputs, edm_weight, squared_error

if TYPE_CHECKING:
    from torch import Tensor


def per_image(x: LossInputs) -> Tensor:
    """w(sigma) ||D - target||^2 [B]."""
    return squared_error(x, edm_weight(x.sigma, x.sigma_data), clean=True)


MEMBER = Loss(per_image=per_image, finite_at_lowest_level=False)
