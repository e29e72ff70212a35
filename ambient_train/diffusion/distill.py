"""Score distillation: from a denoiser trained on noisy images to a generator that makes an image in one step.

Teacher phi: the trained denoiser, frozen. Generator G: x = G(s_G z, s_G), z ~ N(0, I). Critic psi: a denoiser of the
generator's images, trained as the teacher was on the data: with sigma_n drawn from the data's own levels (0 for clean
images), on y = x + sigma_n eps by the teacher's own loss. Where teacher and critic agree at all levels the generator's
images, noised as the data are, have the law of the data; what both extrapolate in the same way cancels. The generator
descends

    L = sum over pixels of (phi - psi) [(phi - x) - alpha (phi - psi)] / omega,    phi, psi at (x_t, s), x_t = x + s n,

with the gradient through x, phi and psi, and omega = mean |x - phi| of the image, a constant, at least 1e-5. s is EDM's
level at the place 1 - u of [.002, 80], u ~ U(0, .8): s in [.002, 24.4]. (Zhou et al. 2024, arXiv 2404.04057; for noisy
data of one level Zhang et al. 2025, arXiv 2505.13377; mixtures and several levels are this project's.)
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
LARGEST_U = 0.8


def generator_levels(u: Tensor) -> Tensor:
    """Levels s [B] float64 of uniform numbers [B] in (0, 1)."""
    place = 1 - LARGEST_U * u
    first, last = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return (first + place * (last - first)) ** RHO


def generator_loss(phi: Tensor, psi: Tensor, x: Tensor, alpha: float) -> Tensor:
    """L of each image [B], summed over its pixels. phi, psi: denoised x_t by teacher and critic; x: [B, ...]."""
    difference = phi - psi
    with torch.no_grad():
        omega = (x - phi).abs().flatten(1).mean(1).clamp_min(1e-5)
    return (difference * ((phi - x) - alpha * difference)).flatten(1).sum(1) / omega
