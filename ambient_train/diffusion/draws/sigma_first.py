"""Sigma from EDM's law, then an image uniformly among those usable at it.

p(sigma) stays EDM's for every mixture. With no clean image the law is truncated at the lowest admissible level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.draws._base import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.noise_levels import DrawInputs


def pair(x: DrawInputs) -> tuple[Tensor, Tensor]:
    """sigma = Q(u_0), then position floor(u_1 m) of the m images with buffer * lowest level < sigma."""
    sigma = x.law.above(x.buffer * x.table.levels[:1], x.u[:, 0])
    available = x.table.admissible(sigma, x.buffer)
    return (x.u[:, 1] * available).long().clamp_max(available - 1), sigma


MEMBER = Draw(pair=pair)
