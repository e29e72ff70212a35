"""An image by epoch permutation, then sigma from EDM's law raised to the image's noise level where it falls below.

As in the code of Daras et al. 2024 (arXiv 2411.02780); the buffer is not used. Draws raised to the level have exactly
zero loss and gradient under weight `y` (36.65 % of the noisy ones at sigma_n = 0.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.draws._base import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.noise_levels import DrawInputs


def pair(x: DrawInputs) -> tuple[Tensor, Tensor]:
    """The image whose turn it is, and max(Q(u_0), its lowest level)."""
    index = x.turn()
    return index, x.law.quantile(x.u[:, 0]).maximum(x.levels[index].double())


MEMBER = Draw(pair=pair, reaches_lowest_level=True)
