"""White Gaussian noise of one level an image: S = sigma_n^2 I.

y = x + sigma_n z, z ~ N(0, I), never clipped. With rho = sigma_n^2/sigma^2 and a diffusion level sigma > sigma_n,

    x_t = y + sqrt(sigma^2 - sigma_n^2) eps        is x + N(0, sigma^2 I),
    E[y | x_t] = (1 - rho) E[x | x_t] + rho x_t    (Daras et al. 2024, arXiv 2411.02780),
    (y - rho x_t)/(1 - rho) = x + N(0, v I),       v = sigma_n^2 sigma^2/(sigma^2 - sigma_n^2),

the last independent of x_t given x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ambient_theory.shared.eigenvalues import Eigenvalues
    from ambient_train.data.images import ImageSet


@dataclass(frozen=True)
class White:
    """Kind and model in one, since nothing but the strength belongs to an image; methods as in `_base`."""

    parameters = ""
    kind = "white"
    white = True
    nbytes = 0

    def added(self, argument: str, shape: tuple[int, int, int]) -> White:
        if argument:
            raise UsageError(f"noise 'white:{argument}': white noise has no parameters beside --sigma; give `white`")
        return self

    def of_images(self, images: ImageSet) -> White | None:
        return self if images.pattern is None and images.spectrum is None else None

    def sent(self, send: Callable[[Tensor], Tensor]) -> White:
        return self

    def at(self, index: Tensor) -> White:
        return self

    def moved(self, move: Callable[[Tensor], Tensor]) -> White:
        return self

    def unlike_after(self, mirrored: bool, turned: bool) -> str:
        return ""

    def noise(self, seed: int, ids: Tensor, shape: Sequence[int]) -> Tensor:
        from ambient_train import stateless  # here, so that the table can be asked without torch

        return stateless.normal(seed, "image-noise", ids, shape)

    def corrupt(self, x: Tensor, sigma_n: Tensor, z: Tensor) -> Tensor:
        return x + _image(sigma_n, x) * z

    def lowest_level(self, sigma_n: Tensor) -> Tensor:
        return sigma_n

    def highest_precision_level(self, sigma_n: Tensor) -> Tensor:
        return sigma_n

    def eigenvalues(self) -> Eigenvalues:
        from ambient_theory.shared.eigenvalues import WHITE  # here, as all that needs NumPy

        return WHITE

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

    def squared_error(
        self, denoised: Tensor, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor, weight: Tensor, *, clean: bool
    ) -> Tensor:
        # D - target = (y_hat - y)/(1 - rho): written with y_hat, there is no cancellation near sigma_n
        residual = self.conditional_mean(denoised, x_t, sigma, sigma_n) - y
        if clean:
            weight = weight / (1 - (sigma_n / sigma) ** 2) ** 2
        return weight.to(residual.dtype) * residual.square().sum(dim=(1, 2, 3))

    def split(self, x: Tensor, y: Tensor, level: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        share = (level**2 / sigma_n**2).clamp_max(1)
        return x + _image(share, x) * (y - x) + _image(level * (1 - share).sqrt(), x) * eps

    def describe(self) -> dict[str, np.ndarray]:
        return {}


def _image(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1).to(like.dtype)


MEMBER = White()
