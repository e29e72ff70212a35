"""As sigma-first, but noisy images come in while the clean ones are repeated.

A step on a noisy image is lost while clean ones still teach more: at first only these are drawn. With e = t/n_clean
the epochs of clean images that t samples would be, and E the epochs of the ramp (`draw_epochs`), a sample is drawn
among all images usable at its level with probability

    r(t) = min(1, e/E),

else among the clean ones. A function of the global sample index, so that resume, batch and ranks change nothing.
Without clean images, without noisy ones, and with E = 0, it is sigma-first to the bit, so that the parts of a data set
alone are one training under both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_train.diffusion.draws._base import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.noise_levels import DrawInputs


def pair(x: DrawInputs) -> tuple[Tensor, Tensor]:
    """sigma = Q(u_0); with u_1 < r position floor(u_1/r m) of the m usable images, else of the clean ones."""
    sigma = x.law.above(x.buffer * x.table.levels[:1], x.u[:, 0])
    usable = x.table.admissible(sigma, x.buffer)
    clean = x.table.n_clean
    ramps = x.epochs > 0 and 0 < clean < len(x.levels)
    ramp = (x.sample.double() / (x.epochs * clean)).clamp_max(1.0) if ramps else sigma.new_ones(())
    among_all = x.u[:, 1] < ramp
    share = (x.u[:, 1] / ramp.clamp_min(1e-300)).where(among_all, (x.u[:, 1] - ramp) / (1 - ramp).clamp_min(1e-300))
    chosen = usable.where(among_all, usable.new_full((), clean))
    return (share * chosen).long().clamp_max(chosen - 1), sigma


MEMBER = Draw(pair=pair, ramps=True)
