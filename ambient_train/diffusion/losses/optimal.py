"""As x0, times the minimum-variance weight V/(V + v) of each image among those of its level.

    L = w(sigma) r ||D - target||^2,    r = V/(V + v), divided by its mean over all images admissible at sigma

At one level a clean image's target scatters by V(sigma) = E Var(x_0 | x_t) about what D is to learn, a noisy one's by
V + v: weights inversely proportional to these variances pool them best (Gauss-Markov), and r is that weight relative to
a clean image's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.losses._base import Loss, LossInputs, edm_weight, squared_error

if TYPE_CHECKING:
    from torch import Tensor


def per_image(x: LossInputs) -> Tensor:
    """w(sigma) r ||D - target||^2 [B]. Raises UsageError without `error` or `table`."""
    return squared_error(x, edm_weight(x.sigma, x.sigma_data) * relative_weight(x), clean=True)


def relative_weight(x: LossInputs) -> Tensor:
    """r = V/(V + v) over its mean, [B] float64.

    The mean is over all images admissible at sigma, so that a level keeps its total weight w(sigma); then capped at
    `cap`. A set without clean images has equal weights at every level of equal noise.
    """
    if x.error is None or x.table is None:
        raise UsageError("weight 'optimal' needs V(sigma) and the table of noise levels")
    error, sigma, table = x.error, x.sigma, x.table.to(x.sigma.device)
    levels = table.levels[None, :]
    usable = levels * x.buffer < sigma[:, None]
    v_all = x.noise.target_variance(sigma[:, None], levels.where(usable, 0.0)).where(usable, 0.0)
    w_all = (error[:, None] / (error[:, None] + v_all)).where(usable, 0.0)
    count = table.counts.double()[None, :].where(usable, 0.0)
    mean = (w_all * count).sum(1) / count.sum(1).clamp_min(1)
    own = error / (error + x.noise.target_variance(sigma, x.sigma_n))
    return (own / mean).clamp_max(x.cap)


MEMBER = Loss(per_image=per_image, finite_at_lowest_level=False, needs_error=True)
