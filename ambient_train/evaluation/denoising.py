"""Held-out denoising error: how well a model removes noise from clean images that it never saw, level by level.

    E(s) = (1/d) mean_i ||D(x_i + s eps_i, s) - x_i||^2          d = pixels of an image, units of [-1, 1]

eps is a function of (evaluation seed, image id, index of the level) alone, so that every model of a data set meets the
same noise: differences of models are paired, image by image, and far sharper than the errors themselves.

The likelihood bound of Song et al. 2021 (arXiv 2101.09258) of a diffusion model is, up to a constant of the data, its
denoising error integrated with weight s^-3; so the difference of the bounds of two models, in nats an image, is

    d int (E_A(s) - E_B(s)) s^-3 ds.

If B is the true denoiser, the integral over all s > 0 is the Kullback-Leibler divergence of A's law from the data's
(Verdu 2010, "Mismatched estimation and relative entropy"). Quadrature: the trapezoidal rule for E s^-2 over ln s. It is
linear in E, so an integral is the mean of the images' own integrals and has their paired standard error; and E s^-2 is
flat at levels far below the scale of the data and falls like s^-2 far above it, where the rule for a smooth function
converges faster than any power of the spacing. What lies outside of the levels measured is left out.

The ranking by denoising error need not be that of a Frechet distance: s^-3 weighs the lowest levels most.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train import stateless
from ambient_train.data.images import to_pixels

SCHEMA = "ambient.denoising/1"
LEVELS = 16
QUICK_IMAGES, QUICK_LEVELS = 256, 8
"""Size of the part that is cheap enough to be measured during training."""

Array = npt.NDArray[np.float64]
Denoise = Callable[..., Tensor]
"""denoise(x [B, C, H, W], sigma scalar, class_labels [B, label_dim] | None) -> D, as `generate.denoiser` gives it."""


def log_levels(sigma_min: float, sigma_max: float, count: int = LEVELS) -> tuple[float, ...]:
    """`count` levels from sigma_min to sigma_max at equal ratios, ascending. Raises UsageError for an empty range."""
    if not (0 < sigma_min < sigma_max < math.inf and count >= 2):
        raise UsageError(f"{count} levels from {sigma_min} to {sigma_max}: give at least 2, and 0 < min < max")
    return tuple(float(s) for s in np.geomspace(sigma_min, sigma_max, count))


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingError:
    """E(s) of one model on one set of images."""

    levels: tuple[float, ...]
    """Diffusion levels s, ascending, in units of [-1, 1]."""
    mean: tuple[float, ...]
    """E(s): squared error per pixel."""
    stderr: tuple[float, ...]
    """Standard error of E(s) over images."""
    n: int
    """Images."""
    dim: int
    """Pixels of an image times channels, d."""
    seed: int
    """Evaluation seed, which keys the noise."""
    images: str
    """8 hex digits of the images and their ids: errors with the same ones and the same seed and levels are paired."""
    per_image: npt.NDArray[np.float32] | None = None
    """Error of each image at each level [n, levels]; not in `to_dict`."""
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first."""
        names = ("schema", "levels", "mean", "stderr", "n", "dim", "seed", "images")
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def part(self, positions: npt.ArrayLike) -> DenoisingError:
        """The same, of the images at `positions` alone. Raises UsageError without the errors of single images."""
        chosen = np.asarray(positions)
        rows = _per_image(self)[chosen]
        if len(rows) < 2:
            raise DataError(f"a denoising error needs at least 2 images, not {len(rows)}")
        name = hashlib.sha256(f"{self.images} {chosen.tolist()}".encode()).hexdigest()[:8]
        mean, stderr = _summary(rows)
        return replace(self, mean=mean, stderr=stderr, n=len(rows), images=name, per_image=rows)


def denoising_error(
    denoise: Denoise,
    images: npt.NDArray[Any],
    ids: npt.NDArray[np.int64],
    levels: Sequence[float],
    *,
    seed: int,
    class_labels: Tensor | None = None,
    batch: int = 500,
    groups: Sequence[npt.NDArray[np.int64]] | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> DenoisingError:
    """Measure E(s) of a denoiser at every level.

    images: clean ones [n, C, H, W], uint8 or float32 in units of [-1, 1], n >= 2. ids [n]: stable identity of each.
    class_labels: [n, label_dim], for a conditional network. groups: positions, each once, of images that meet the
    network together, so that the errors of a group are to the last bit those of its images alone.
    on_progress(done, all): heard after each batch, in evaluations. Costs n len(levels) evaluations of the network, at
    `batch` at once: 2,000 images of 8x8 at 16 levels take the small network about 10 s on one slow core, the quick part
    half a second; the noise takes .05 s.
    Raises UsageError for levels that are not positive and ascending, DataError for unusable images or an error that is
    not finite.
    """
    points = tuple(float(s) for s in levels)
    if not points or points[0] <= 0 or any(b <= a for a, b in itertools.pairwise(points)):
        raise UsageError(f"levels {list(points)} must be above 0 and ascending")
    n = len(images)
    if n < 2 or images.ndim != 4 or len(ids) != n:
        raise DataError(f"{len(ids)} ids for images of shape {images.shape}: give at least 2 images [n, C, H, W]")
    errors = np.full((n, len(points)), np.nan)
    together = [np.arange(n)] if groups is None else list(groups)
    batches = [group[start : start + batch] for group in together for start in range(0, len(group), batch)]
    done = 0
    for chosen in batches:
        x = torch.from_numpy(to_pixels(images[chosen])).to(device)
        keys = torch.from_numpy(np.asarray(ids[chosen], np.int64)).to(device)
        labels = None if class_labels is None else class_labels[chosen].to(device)
        for k, level in enumerate(points):
            noisy = x + level * stateless.normal(seed, f"denoise-{k}", keys, x.shape[1:])
            with torch.no_grad():
                found = denoise(noisy, torch.tensor(level, device=device), class_labels=labels)
            error = (found.to(torch.float64) - x.to(torch.float64)).square().mean(dim=(1, 2, 3))
            errors[chosen, k] = error.cpu().numpy()
            if on_progress is not None:
                on_progress(done * len(points) + (k + 1) * len(x), n * len(points))
        done += len(chosen)
    if not np.isfinite(errors).all():
        bad = [f"{s:.3g}" for s, column in zip(points, errors.T, strict=True) if not np.isfinite(column).all()]
        raise DataError(f"the denoising error is not finite at level {', '.join(bad)}: the model has diverged")
    rows = errors.astype(np.float32)
    mean, stderr = _summary(rows)
    return DenoisingError(
        levels=points,
        mean=mean,
        stderr=stderr,
        n=n,
        dim=math.prod(images.shape[1:]),
        seed=seed,
        images=images_hash(images, ids),
        per_image=rows,
    )


def _summary(errors: npt.NDArray[np.floating]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard error over images, for each level."""
    rows = errors.astype(np.float64)
    stderr = rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
    return tuple(rows.mean(axis=0).tolist()), tuple(stderr.tolist())


def images_hash(images: npt.NDArray[Any], ids: npt.NDArray[np.int64]) -> str:
    """8 hex digits of images and their ids, as `DenoisingError.images` has them."""
    digest = hashlib.sha256(f"{images.shape} {images.dtype.str}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(ids, dtype=np.int64).data)
    return digest.hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """E_A(s) - E_B(s), image by image: mean and standard error at each level; negative where A is better."""

    levels: tuple[float, ...]
    mean: tuple[float, ...]
    stderr: tuple[float, ...]
    n: int


def paired_difference(a: DenoisingError, b: DenoisingError) -> PairedDifference:
    """E_A(s) - E_B(s) with the standard error of the images' own differences.

    Raises UsageError unless both are of the same images, levels and noise, with the errors of single images.
    """
    mean, stderr = _summary(_paired(a, b))
    return PairedDifference(levels=a.levels, mean=mean, stderr=stderr, n=a.n)


@dataclass(frozen=True, kw_only=True)
class Nats:
    """An integral over levels: value in nats an image, its standard error over images, and n of them."""

    value: float
    stderr: float
    n: int
    dim: int
    """Pixels of an image times channels."""
    sigma_min: float
    sigma_max: float
    """The levels between which it was taken."""
    method: str = "trapezoidal rule for E/s^2 over ln s"

    @property
    def bits_per_dim(self) -> float:
        """Value in bits per pixel and channel."""
        return self.value / (self.dim * math.log(2))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        names = ("value", "stderr", "n", "dim", "sigma_min", "sigma_max", "method", "bits_per_dim")
        return {name: getattr(self, name) for name in names}


def excess_nats(a: DenoisingError, b: DenoisingError) -> Nats:
    """How many nats an image A's likelihood bound lies above B's over the levels measured; negative: A is better.

    See the module. Raises as `paired_difference`.
    """
    return _integral(a, _paired(a, b))


def total_nats(error: DenoisingError) -> Nats:
    """d int E(s) s^-3 ds over the levels measured: one number a model, for ranking models on the same images.

    The standard error is that of the value itself, far wider than that of a difference (`excess_nats`).
    """
    return _integral(error, _per_image(error).astype(np.float64))


def quadrature(levels: Sequence[float]) -> Array:
    """Weights w [L] with int f(s) s^-3 ds ~ sum_k w_k f(s_k) over the range of the levels (L >= 2), see the module."""
    s = np.asarray(levels, np.float64)
    if len(s) < 2:
        raise UsageError(f"an integral over levels needs at least 2 of them, not {len(s)}")
    gaps = np.diff(np.log(s))
    width = (np.concatenate([gaps, [0.0]]) + np.concatenate([[0.0], gaps])) / 2
    return width / s**2


def _integral(error: DenoisingError, rows: Array) -> Nats:
    each = error.dim * (rows @ quadrature(error.levels))
    return Nats(
        value=float(each.mean()),
        stderr=float(each.std(ddof=1)) / math.sqrt(len(each)),
        n=len(each),
        dim=error.dim,
        sigma_min=error.levels[0],
        sigma_max=error.levels[-1],
    )


def _per_image(error: DenoisingError) -> npt.NDArray[np.float32]:
    if error.per_image is None:
        raise UsageError("this denoising error does not hold the errors of single images: measure it again")
    return error.per_image


def _paired(a: DenoisingError, b: DenoisingError) -> Array:
    """Differences of single images [n, L]."""
    for name in ("levels", "seed", "images", "n"):
        if getattr(a, name) != getattr(b, name):
            raise UsageError(
                f"denoising errors of different {name} cannot be paired: {getattr(a, name)} and {getattr(b, name)}"
            )
    return _per_image(a).astype(np.float64) - _per_image(b)


# What early stopping needs: a small fixed part, and two halves.


def quick_part(ids: npt.NDArray[np.int64], seed: int, count: int = QUICK_IMAGES) -> npt.NDArray[np.int64]:
    """Positions, ascending, of `count` of the images: a fixed random part, nested in the count; all if there are fewer.

    With `QUICK_LEVELS` levels it is measured in a small share of the time of all images at all levels.
    """
    return np.sort(_order(ids, seed)[:count])


def halves(ids: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of two random halves of the images: one to choose a checkpoint on, the other to score it on."""
    order = _order(ids, seed)
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def _order(ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    return stateless.order(seed, "denoise-part", torch.from_numpy(np.asarray(ids, np.int64))).numpy()
