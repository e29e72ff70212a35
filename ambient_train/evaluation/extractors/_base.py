"""What a feature extractor is, and what the table says of one before it is built.

    extractor(images uint8 [N, C, H, W]) -> features float [N, d]

Every extractor carries a hash of all that determines its features (weights, architecture, preprocessing), because a
Frechet or kernel distance is comparable only with another one in the same features. `label` is `name:hash8`.
Generated images are clipped and rounded to uint8 first (`to_uint8`), as Heusel et al. (2017) do for FID.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError

Images = npt.NDArray[np.uint8] | torch.Tensor
Features = npt.NDArray[np.floating]
Device = str | torch.device
MAX_DIM = 4096
"""Most features whose covariance is still computed."""


def exact_convolutions() -> AbstractContextManager[None]:
    """Convolutions in full float32 on a GPU, where cuDNN otherwise rounds to TF32 (about three digits)."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


class Extractor(ABC):
    """A named map from uint8 images to feature vectors.

    name: what the user types. hash: 8 hex digits of what determines the features. dim: features per image, None if it
    depends on the image size. channels: accepted numbers of channels, None for any. classes: number of class
    probabilities (`probabilities`), None without a classifier.
    """

    name: str
    hash: str
    dim: int | None = None
    channels: tuple[int, ...] | None = None
    classes: int | None = None
    batch_size: int = 500

    @property
    def label(self) -> str:
        """`name:hash8`, as records store it."""
        return f"{self.name}:{self.hash}"

    @property
    def metric_name(self) -> str:
        """Name of the Frechet distance in these features. Only Inception's is called FID."""
        return "fd"

    def __call__(self, images: Images) -> Features:
        """uint8 images [N, C, H, W] -> features [N, d]. The result does not depend on the batch size beyond rounding.

        Raises DataError for another type, shape or number of channels, or features that are not finite.
        """
        batch = self._check(images)
        with exact_convolutions():
            parts = [self._features(part) for part in batch.split(self.batch_size)]
        features: Features = np.concatenate(parts) if parts else np.empty((0, self.dim or 0), np.float32)
        return self._finite(features)

    def probabilities(self, images: Images) -> npt.NDArray[np.float64]:
        """Class probabilities [N, classes]. Raises UsageError if this extractor has no classifier."""
        return self.with_probabilities(images)[1]

    def with_probabilities(self, images: Images) -> tuple[Features, npt.NDArray[np.float64]]:
        """Features [N, d] and class probabilities [N, classes] from one pass. Raises as the two alone do."""
        if self.classes is None:
            raise UsageError(f"extractor {self.name!r} has no class probabilities, so no Inception Score")
        with exact_convolutions():
            parts = [self._both(part) for part in self._check(images).split(self.batch_size)]
        if not parts:
            return np.empty((0, self.dim or 0), np.float32), np.empty((0, self.classes))
        return self._finite(np.concatenate([f for f, _ in parts])), np.concatenate([p for _, p in parts])

    @abstractmethod
    def _features(self, batch: torch.Tensor) -> Features: ...

    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        raise NotImplementedError(f"{type(self).__name__} sets `classes` without `_both`")

    def _finite(self, features: Features) -> Features:
        if not np.isfinite(features).all():
            raise DataError(f"{self.label} gave features that are not finite")
        return features

    def _check(self, images: Images) -> torch.Tensor:
        dtype = getattr(images, "dtype", type(images).__name__)
        if dtype not in (np.uint8, torch.uint8):
            raise DataError(f"extractor {self.name!r} takes uint8 images, not {dtype} (use `to_uint8`)")
        if images.ndim != 4:
            raise DataError(f"images must be [N, C, H, W], not of shape {tuple(images.shape)}")
        if self.channels is not None and images.shape[1] not in self.channels:
            allowed = " or ".join(map(str, self.channels))
            raise DataError(
                f"extractor {self.name!r} takes images of {allowed} channel(s), not {images.shape[1]}; "
                f"use one made for them, such as `pixels`"
            )
        return images if isinstance(images, torch.Tensor) else torch.tensor(images)


@dataclass(frozen=True, kw_only=True)
class ExtractorKind:
    """A member of the table: how an extractor is built, and for which images it is a choice nobody has to ask for."""

    build: Callable[[str, Device], Extractor]
    """build(path, device). path: what the user wrote after the colon, "" if nothing. Raises UsageError where a package
    or a file is missing, saying what to do, and DataError where a file cannot be read."""
    path: Literal["none", "optional", "required"] = "none"
    """Whether `name:PATH` can or must be given."""
    default_channels: tuple[int, ...] | None = ()
    """Numbers of channels for which this is a default choice, None = any."""
    default_rank: int | None = None
    """Of the default choices with a rank the lowest one that is at hand is taken; one without a rank is always."""
    unavailable: Callable[[int, int], str | None] = lambda channels, side: None
    """Why it cannot be used for images [channels, side, side] here, or None if it can."""
