"""An image by epoch permutation, then sigma from EDM's law truncated to where it is usable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.draws._base import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.noise_levels import DrawInputs


def pair(x: DrawInputs) -> tuple[Tensor, Tensor]:
    """The image whose turn it is, and sigma of the law truncated to (buffer * its lowest level, inf)."""
    index = x.turn()
    return index, x.law.above(x.buffer * x.levels[index].double(), x.u[:, 0])


MEMBER = Draw(pair=pair)
