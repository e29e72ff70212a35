"""What a noise model says: the law of y given x, and what y tells about x at a diffusion level above its noise.

Noise is Gaussian, n ~ N(0, S), with S of each image known. At a level sigma above the largest eigenvalue of S, and with
R = S/sigma^2,

    x_t = y + N(0, sigma^2 I - S)                 is x + N(0, sigma^2 I),
    E[y | x_t] = D + R (x_t - D)                  where D = E[x | x_t],
    (I - R)^-1 (y - R x_t) = x + N(0, sigma^2 R (I - R)^-1),

the last independent of x_t given x. R = rho I is white noise (Daras et al. 2024, arXiv 2411.02780).

A kind of noise is a member of the table; for images it gives a `NoiseModel`, which knows S of every image up to its
strength. Shapes throughout: images x, y, x_t, D and noises [B, C, H, W], strengths sigma_n and diffusion levels sigma
[B] float64, all in units of [-1, 1]. sigma_n^2 is the mean of the diagonal of S, the mean variance over the pixels;
sigma_n = 0 is a clean image for every model. A model is a pure function of its arguments: all randomness is keyed or
comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ambient_theory.shared.eigenvalues import Eigenvalues
    from ambient_train.data.images import ImageSet


class NoiseKind(Protocol):
    """The interface of the members of the table."""

    parameters: str
    """What stands behind the name and a colon where such noise is added, for help; "" where nothing does."""

    def added(self, argument: str, shape: tuple[int, int, int]) -> NoiseModel:
        """The model of noise that is added to images of (C, H, W). Raises UsageError for an argument it has not."""
        ...

    def of_images(self, images: ImageSet) -> NoiseModel | None:
        """The model of the noise that images came with, in their order; None where it is of another kind."""
        ...


class NoiseModel(Protocol):
    """The noise of a set of images, or, after `at`, of a batch of them."""

    @property
    def kind(self) -> str:
        """The name of its kind in the table."""
        ...

    @property
    def white(self) -> bool:
        """Whether S is sigma_n^2 I."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of what it knows of the images."""
        ...

    def sent(self, send: Callable[[Tensor], Tensor]) -> NoiseModel:
        """The same model, what it knows of the images being where `send` brings it."""
        ...

    def at(self, index: Tensor) -> NoiseModel:
        """The model of the images at positions `index` [B], on the index's device."""
        ...

    def moved(self, move: Callable[[Tensor], Tensor]) -> NoiseModel:
        """The model after `move`, which maps the pixel lattice of each image [B, C, H, W] onto itself."""
        ...

    def unlike_after(self, mirrored: bool, turned: bool) -> str:
        """Why an image mirrored or turned has noise of another law, where `moved` cannot follow; "" else."""
        ...

    def noise(self, seed: int, ids: Tensor, shape: Sequence[int]) -> Tensor:
        """The one fixed unit noise z of each image [B, *shape]: a function of (seed, image id) alone; ids [B] int64."""
        ...

    def corrupt(self, x: Tensor, sigma_n: Tensor, z: Tensor) -> Tensor:
        """y = x + S^(1/2) z, the noisy image of strength sigma_n."""
        ...

    def lowest_level(self, sigma_n: Tensor) -> Tensor:
        """The root of the largest eigenvalue of S [B]: the diffusion level above which an image can be used."""
        ...

    def highest_precision_level(self, sigma_n: Tensor) -> Tensor:
        """The root of the smallest eigenvalue of S [B]: the noise of what is known best of an image."""
        ...

    def eigenvalues(self) -> Eigenvalues:
        """Those of S relative to their mean, over all images of the model."""
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
        """Variance of that estimate's own error, mean over the pixels; broadcasts."""
        ...

    def squared_error(
        self, denoised: Tensor, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor, weight: Tensor, *, clean: bool
    ) -> Tensor:
        """weight ||E[y | x_t] - y||^2 [B], or, `clean`, weight ||D - target||^2; weight [B] float64."""
        ...

    def split(self, x: Tensor, y: Tensor, level: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        """z given x and y, where z = x + N(0, level^2 I) and y = z + N(0, S - level^2 I), with unit noise eps.

            z ~ N(x + level^2 S^-1 (y - x), level^2 (I - level^2 S^-1)),

        level [B]. Where an eigenvalue of S is below level^2, y counts there as having noise of that level: z = y.
        """
        ...

    def describe(self) -> dict[str, np.ndarray]:
        """Arrays by which files keep the kind of noise beside the strengths; none for white noise."""
        ...
