"""Gaussian noise whose covariance is diagonal in a known basis: what the kinds that are not white share.

S = sigma_n^2 U diag(lambda) U^T with an orthogonal U and relative variances lambda of mean 1, one for each pixel (U =
I) or for each frequency. Every function of S that `_base` names is one of lambda, between U^T and U.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ambient_theory.shared.eigenvalues import Eigenvalues
from ambient_train import stateless

_MOST_IMAGES = 256
"""Maps looked at for the distribution of all eigenvalues."""
_ALIKE = 1e-5
"""Spectra that differ by less, relative to their largest value, are the same."""

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, eq=False)
class Diagonal(ABC):
    """relative: lambda, float32 [N or 1, C or 1, H, W or W//2 + 1]; one for all images where the first axis is 1.

    A member of the family says what its basis is.
    """

    relative: Tensor

    @property
    def white(self) -> bool:
        return False

    @property
    def nbytes(self) -> int:
        return self.relative.nbytes

    def sent(self, send: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, relative=send(self.relative))

    def at(self, index: Tensor) -> Self:
        chosen = self.relative if len(self.relative) == 1 else self.relative[index.to(self.relative.device)]
        return replace(self, relative=chosen.to(index.device))

    @abstractmethod
    def _into(self, images: Tensor) -> Tensor:
        """U^T."""

    @abstractmethod
    def _back(self, coefficients: Tensor) -> Tensor:
        """U."""

    def noise(self, seed: int, ids: Tensor, shape: Sequence[int]) -> Tensor:
        return stateless.normal(seed, "image-noise", ids, shape)

    def corrupt(self, x: Tensor, sigma_n: Tensor, z: Tensor) -> Tensor:
        return x + self._apply(self._variance(sigma_n).sqrt(), z)

    def lowest_level(self, sigma_n: Tensor) -> Tensor:
        return sigma_n * self.relative.flatten(1).amax(1).to(sigma_n.device, torch.float64).sqrt()

    def highest_precision_level(self, sigma_n: Tensor) -> Tensor:
        return sigma_n * self.relative.flatten(1).amin(1).to(sigma_n.device, torch.float64).sqrt()

    def eigenvalues(self) -> Eigenvalues:
        every = self.relative
        step = -(-len(every) // _MOST_IMAGES)
        chosen = every[::step].to("cpu", torch.float64)
        found = Eigenvalues.of(chosen.numpy(), self._weights(chosen).numpy())
        # of maps that differ, the strongest pixel of all is kept whichever images were looked at
        largest = float(every.amax()) / float((chosen * self._weights(chosen)).sum() / self._weights(chosen).sum())
        return Eigenvalues((*found.values[:-1], max(found.values[-1], largest)), found.shares)

    def _weights(self, relative: Tensor) -> Tensor:
        """How many eigenvalues each number of `relative` stands for, of its shape."""
        return torch.ones_like(relative)

    def diffuse(self, y: Tensor, sigma: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        missing = (_image(sigma) ** 2 - self._variance(sigma_n)).clamp_min(0)
        return y + self._apply(missing.sqrt(), eps)

    def conditional_mean(self, denoised: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        return denoised + self._apply(self._ratio(sigma, sigma_n), x_t - denoised)

    def target(self, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        ratio = self._ratio(sigma, sigma_n)
        return y + self._apply(ratio / (1 - ratio), y - x_t)

    def target_variance(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        ratio = self._ratio(sigma, sigma_n)
        return sigma**2 * self._mean(ratio / (1 - ratio))

    def squared_error(
        self, denoised: Tensor, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor, weight: Tensor, *, clean: bool
    ) -> Tensor:
        ratio = self._ratio(sigma, sigma_n)
        residual = self._into(denoised - y) + self._cast(ratio, y) * self._into(x_t - denoised)
        if clean:
            residual = residual / self._cast(1 - ratio, y)
        return weight.to(y.dtype) * self._back(residual).square().sum(dim=(1, 2, 3))

    def split(self, x: Tensor, y: Tensor, level: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
        known = _image(level) ** 2
        share = known / torch.maximum(self._variance(sigma_n), known)
        moved = self._cast(share, x) * self._into(y - x)
        return x + self._back(moved + self._cast((known * (1 - share)).sqrt(), x) * self._into(eps))

    def _variance(self, sigma_n: Tensor) -> Tensor:
        """Eigenvalues of S, float64 [B, C or 1, ...]."""
        return _image(sigma_n) ** 2 * self.relative.to(sigma_n.device, torch.float64)

    def _ratio(self, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        return self._variance(sigma_n) / _image(sigma) ** 2

    def _apply(self, factor: Tensor, images: Tensor) -> Tensor:
        return self._back(self._cast(factor, images) * self._into(images))

    def _cast(self, factor: Tensor, like: Tensor) -> Tensor:
        return factor.to(like.dtype)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over all coefficients [B]."""
        return values.flatten(1).mean(1)


@dataclass(frozen=True, eq=False)
class Mapped(Diagonal):
    """A variance for each pixel, relative [N or 1, C or 1, H, W]: U = I."""

    kind = "variance-map"

    def moved(self, move: Callable[[Tensor], Tensor]) -> Mapped:
        return replace(self, relative=move(self.relative))

    def unlike_after(self, mirrored: bool, turned: bool) -> str:
        return ""

    def describe(self) -> dict[str, np.ndarray]:
        return {"pattern": self.relative.sqrt().numpy()}

    def _into(self, images: Tensor) -> Tensor:
        return images

    def _back(self, coefficients: Tensor) -> Tensor:
        return coefficients


@dataclass(frozen=True, eq=False)
class Stationary(Diagonal):
    """A variance for each frequency, relative [1, C or 1, H, W//2 + 1]: U is the discrete Fourier transform, so the
    noise goes round the edges (periodic)."""

    kind = "correlated"

    width: int
    """W: a half spectrum does not say whether it is even."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> Stationary:
        return self  # shifts keep it, and `unlike_after` says what does not

    def unlike_after(self, mirrored: bool, turned: bool) -> str:
        # in float64 both symmetries hold up to rounding where they hold
        half = self.relative[0].to(torch.float64)
        scale = half.amax()
        upside = torch.cat([half[:, :1], half[:, 1:].flip(1)], 1)
        if mirrored and float((half - upside).abs().amax()) > _ALIKE * float(scale):
            return "its spectrum is not that of its mirror image"
        if turned:
            side = half.shape[2]
            square = half[:, :side, :]
            if half.shape[1] != self.width or float((square - square.mT).abs().amax()) > _ALIKE * float(scale):
                return "its spectrum is not the same along both axes"
        return ""

    def describe(self) -> dict[str, np.ndarray]:
        return {"spectrum": self.relative[0].numpy()}

    def _into(self, images: Tensor) -> Tensor:
        return torch.fft.rfft2(images, norm="ortho")

    def _back(self, coefficients: Tensor) -> Tensor:
        shape = (self.relative.shape[-2], self.width)
        return torch.fft.irfft2(coefficients, s=shape, norm="ortho")

    def _weights(self, relative: Tensor) -> Tensor:
        return half_plane_weights(relative.shape[-2], self.width).to(relative.device).expand_as(relative)

    def _mean(self, values: Tensor) -> Tensor:
        return (values * self._weights(values)).flatten(2).sum(2).mean(1)


def half_plane_weights(height: int, width: int) -> Tensor:
    """[H, W//2 + 1] float64, sum 1: the share of the whole plane of frequencies that each of the half stands for."""
    columns = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    columns[0] = 1.0
    if width % 2 == 0:
        columns[-1] = 1.0
    return columns.expand(height, -1) / (height * width)


def _image(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1).to(torch.float64)
