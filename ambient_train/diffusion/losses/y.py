"""Error against the image as it is, the loss of the paper.

    L = w(sigma) ||y_hat - y||^2

(Daras et al. 2024, arXiv 2411.02780). Loss and gradient of a noisy image vanish as sigma falls to sigma_n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.losses._base import Loss, LossInputs, edm_weight, squared_error

if TYPE_CHECKING:
    from torch import Tensor


def per_image(x: LossInputs) -> Tensor:
    """w(sigma) ||y_hat - y||^2 [B]."""
    return squared_error(x, edm_weight(x.sigma, x.sigma_data), clean=False)


MEMBER = Loss(per_image=per_image, finite_at_lowest_level=True)
