"""Kernel distance: the unbiased squared maximum mean discrepancy.

See `kernel` for the equation. Unlike the Frechet distance it has no finite-sample floor, and may be negative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ambient_train.evaluation.features import Extractor, Features
from ambient_train.evaluation.kernel import kernel_distance
from ambient_train.evaluation.metrics._base import Metric, Score
from ambient_train.evaluation.references import KERNEL_IMAGES, Reference

GROUPS = 20


class KernelCollector:
    """The features of the first `KERNEL_IMAGES` images. Methods as in `Collector`."""

    def __init__(self, extractor: Extractor):
        self._extractor = extractor
        self._kept: list[npt.NDArray[np.float32]] = []
        self._n = 0

    def update(self, features: Features, probabilities: npt.NDArray[np.float64] | None) -> None:
        if self._n < KERNEL_IMAGES:
            part = np.asarray(features[: KERNEL_IMAGES - self._n], np.float32)
            self._kept.append(part)
            self._n += len(part)

    def score(self, reference: Reference | None) -> Score | None:
        assert reference is not None
        if reference.images is None:
            return None
        real = reference.features(self._extractor)
        result = kernel_distance(
            np.concatenate(self._kept), real, reference_mean=reference.kernel_mean(self._extractor), groups=GROUPS
        )
        return Score(
            metric="kid",
            extractor=self._extractor.label,
            reference=reference.name,
            value=result.value,
            stderr=result.stderr,
            n=self._n,
            n_reference=len(real),
            method=f"unbiased MMD^2, all pairs; delete-a-group jackknife, {result.groups} groups of generated images",
            df=result.groups - 1,
        )


MEMBER = Metric(collect=KernelCollector, record_names=("kid",), default=True)
