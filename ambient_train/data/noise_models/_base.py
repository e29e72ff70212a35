"""What a noise model says: the law of y given x, and what y tells about x at a diffusion level above its noise.

Shapes throughout: images x, y, x_t, D and noises [B, C, H, W], strengths sigma_n and diffusion levels sigma [B]
float64, all in units of [-1, 1]. sigma_n = 0 is a clean image for every model. A model is a pure function of its
arguments: all randomness is keyed or comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class NoiseModel(Protocol):
    """The interface of the members of this table."""

    def noise(self, seed: int, ids: Tensor, shape: Sequence[int]) -> Tensor:
        """The one fixed unit noise z of each image [B, *shape]: a function of (seed, image id) alone; ids [B] int64."""
        ...

    def corrupt(self, x: Tensor, sigma_n: Tensor, z: Tensor) -> Tensor:
        """y, the noisy image of strength sigma_n, from x and its noise z."""
        ...

    def lowest_level(self, sigma_n: Tensor) -> Tensor:
        """The diffusion level [N] above which an image of strength sigma_n can be used, and at or below which not."""
        ...

    def diffuse(self, y: Tensor, sigma: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        """x_t, distributed as x + N(0, sigma^2), from y and fresh unit noise eps; needs sigma >= `lowest_level`."""
        ...

    def conditional_mean(self, denoised: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        """E[y | x_t] if `denoised` is E[x | x_t]."""
        ...

    def target(self, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        """An unbiased estimate of x whose error is independent of x_t given x; needs sigma > `lowest_level`."""
        ...

    def target_variance(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        """Variance of that estimate's own error, per pixel; broadcasts."""
        ...

    def attenuation(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        """a with y_hat - y = a (D - target): what the error of a denoiser loses on its way to y; broadcasts."""
        ...
