"""What generated images are compared with: real images or statistics from a file, prepared once, used many times."""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.images import to_uint8
from ambient_train.data.load import Split, load_images
from ambient_train.evaluation.features import Extractor, Features
from ambient_train.evaluation.frechet import FrechetReference
from ambient_train.evaluation.kernel import kernel_mean_within
from ambient_train.evaluation.statistics import FeatureStatistics, RunningStatistics

KERNEL_IMAGES = 10_000
_CHUNK = 1000


class Reference:
    """A named set of real images, uint8 [N, C, H, W], with features and statistics cached for each extractor.

    Make one and score as many sets of generated images against it as needed. `images` stay as they are; features are
    kept for the first `KERNEL_IMAGES` images in a fixed random order (for KID), statistics use all images.
    """

    def __init__(self, name: str, images: npt.NDArray[np.uint8] | None):
        if images is not None:
            if images.dtype != np.uint8 or images.ndim != 4:
                raise DataError(
                    f"reference {name!r} must be uint8 images [N, C, H, W], not {images.dtype} {images.shape}"
                )
            if len(images) < 2:
                raise DataError(f"reference {name!r} has {len(images)} image(s): at least 2 are needed")
        self.name = name
        self.images = images
        self._frechet: dict[str, FrechetReference] = {}
        self._features: dict[str, Features] = {}
        self._kernel_mean: dict[str, float] = {}

    @classmethod
    def from_statistics(cls, name: str, statistics: FeatureStatistics, extractor: Extractor) -> Reference:
        """A reference known by mean and covariance alone (no KID), in the features of `extractor`.

        Raises DataError if the statistics say that they were made by another extractor, or have another dimension.
        """
        if statistics.extractor is not None and statistics.extractor != extractor.label:
            raise DataError(
                f"reference {name!r} holds statistics of {statistics.extractor}, not of {extractor.label}: "
                f"they cannot be compared"
            )
        if extractor.dim is not None and statistics.dim != extractor.dim:
            raise DataError(
                f"reference {name!r} has {statistics.dim} features, extractor {extractor.name!r} has {extractor.dim}"
            )
        reference = cls(name, None)
        reference._frechet[extractor.label] = FrechetReference(statistics)
        return reference

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], extractor: Extractor, name: str | None = None) -> Reference:
        """`from_statistics` of an `.npz` with `mu` and `sigma`, as EDM publishes them. The name is the file's stem."""
        return cls.from_statistics(name or Path(path).stem, FeatureStatistics.load(path), extractor)

    def frechet(self, extractor: Extractor) -> FrechetReference:
        """Statistics and A^1/2 in the features of `extractor`. Raises DataError if only other features are known."""
        if extractor.label not in self._frechet:
            images = self._need_images(extractor)
            sums: RunningStatistics | None = None
            for start in range(0, len(images), _CHUNK):
                rows = extractor(images[start : start + _CHUNK])
                sums = sums or RunningStatistics(rows.shape[1])
                sums.update(rows)
            assert sums is not None
            self._frechet[extractor.label] = FrechetReference(sums.finish(extractor.label))
        return self._frechet[extractor.label]

    def features(self, extractor: Extractor) -> Features:
        """Features of at most `KERNEL_IMAGES` images in a fixed random order, for KID."""
        if extractor.label not in self._features:
            images = self._need_images(extractor)
            # not `stateless.order`, which would choose others of many images and so move every KID on record
            chosen = np.random.default_rng(0).permutation(len(images))[:KERNEL_IMAGES]
            self._features[extractor.label] = extractor(images[chosen])
        return self._features[extractor.label]

    def kernel_mean(self, extractor: Extractor) -> float:
        """Mean kernel over pairs of different images among `features`, for KID."""
        if extractor.label not in self._kernel_mean:
            self._kernel_mean[extractor.label] = kernel_mean_within(self.features(extractor))
        return self._kernel_mean[extractor.label]

    def n(self, extractor: Extractor) -> int | None:
        """Images behind the statistics (None if a file does not say)."""
        return len(self.images) if self.images is not None else self.frechet(extractor).statistics.n

    def save(self, path: str | os.PathLike[str], extractor: Extractor) -> None:
        """Write the statistics in the features of `extractor` as `.npz` (`mu`, `sigma`, `n`, `extractor`)."""
        replace(self.frechet(extractor).statistics, extractor=extractor.label).save(path)

    @functools.cached_property
    def content_hash(self) -> str | None:
        """First 8 hex digits of the SHA-256 of the images, None for a reference of statistics alone."""
        if self.images is None:
            return None
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()[:8]

    def _need_images(self, extractor: Extractor) -> npt.NDArray[np.uint8]:
        if self.images is None:
            known = ", ".join(self._frechet)
            raise UsageError(f"reference {self.name!r} holds only statistics of {known}: images are needed here")
        return self.images


def open_reference(
    spec: str,
    extractor: Extractor,
    *,
    name: str | None = None,
    split: Split = "all",
    resolution: int | None = None,
    max_images: int | None = None,
) -> Reference:
    """A reference from statistics in an `.npz` (`mu`, `sigma`), or from any data source that `load_images` reads.

    Images that came with noise of their own are left out. `extractor` says whose features the statistics of a file
    are in; images serve every extractor. split, resolution, max_images: as in `load_images`; they make no sense for
    statistics. The name defaults to the file's stem or the data set's name. Raises UsageError and DataError.
    """
    if is_statistics_file(spec):
        if split != "all" or resolution is not None or max_images is not None:
            raise UsageError(f"{spec} holds statistics, not images: split, resolution and max_images cannot be applied")
        return Reference.from_file(spec, extractor, name)
    found = load_images(spec, split=split, resolution=resolution, max_images=max_images)
    images = found.images if found.sigma_n is None else found.images[found.sigma_n == 0]
    return Reference(name or found.name, to_uint8(images))


def is_statistics_file(path: str | os.PathLike[str], *, own: bool = False) -> bool:
    """Whether `path` is an `.npz` archive that holds `mu` and `sigma`; own: and says, as ours do, of whose features."""
    if not (str(path).lower().endswith(".npz") and Path(path).is_file()):
        return False
    wanted = {"mu.npy", "sigma.npy"} | ({"extractor.npy"} if own else set())
    try:
        with zipfile.ZipFile(path) as archive:
            return wanted <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def as_references(references: Mapping[str, npt.NDArray[np.uint8] | Reference]) -> list[Reference]:
    """A `Reference` for each entry; arrays are wrapped under their key. Raises UsageError if there is none."""
    if not references:
        raise UsageError("no reference given: give the clean training images, held-out images or a statistics file")
    return [r if isinstance(r, Reference) else Reference(name, r) for name, r in references.items()]
