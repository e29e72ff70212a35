"""White Gaussian noise: y = x + sigma_n z, z ~ N(0, I), never clipped.

With rho = sigma_n^2/sigma^2 and a diffusion level sigma > sigma_n,

    x_t = y + sqrt(sigma^2 - sigma_n^2) eps        is x + N(0, sigma^2 I),
    E[y | x_t] = (1 - rho) E[x | x_t] + rho x_t    (Daras et al. 2024, arXiv 2411.02780),
    (y - rho x_t)/(1 - rho) = x + N(0, v I),       v = sigma_n^2 sigma^2/(sigma^2 - sigma_n^2),

the last independent of x_t given x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class White:
    """See the module; methods as in `NoiseModel`."""

    def noise(self, seed: int, ids: Tensor, shape: Sequence[int]) -> Tensor:
        from ambient_train import stateless  # here, so that the table can be asked without torch

        return stateless.normal(seed, "image-noise", ids, shape)

    def corrupt(self, x: Tensor, sigma_n: Tensor, z: Tensor) -> Tensor:
        return x + _image(sigma_n, x) * z

    def lowest_level(self, sigma_n: Tensor) -> Tensor:
        return sigma_n

    def diffuse(self, y: Tensor, sigma: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        scale = (sigma**2 - sigma_n**2).clamp_min(0).sqrt()
        return y + _image(scale, y) * eps

    def conditional_mean(self, denoised: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        rho = (sigma_n / sigma) ** 2
        return _image(1 - rho, denoised) * denoised + _image(rho, denoised) * x_t

    def target(self, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        rho = (sigma_n / sigma) ** 2
        return (y - _image(rho, y) * x_t) / _image(1 - rho, y)

    def target_variance(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        return sigma_n**2 * sigma**2 / (sigma**2 - sigma_n**2)

    def attenuation(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        return 1 - (sigma_n / sigma) ** 2


def _image(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1).to(like.dtype)


MEMBER = White()
