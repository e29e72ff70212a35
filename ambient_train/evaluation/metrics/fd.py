"""Frechet distance, called `fid` in the published Inception features.

See `frechet` for the equation. Its finite-n bias is not subtracted but reported.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ambient_theory.shared.errors import DataError
from ambient_train.evaluation.features import MAX_DIM, Extractor, Features
from ambient_train.evaluation.frechet import jackknife_frechet
from ambient_train.evaluation.metrics._base import Metric, Score
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.statistics import GroupedStatistics

GROUPS = 20
WIDE_GROUPS, WIDE = 10, 1024
"""Groups of the jackknife, and how many from that many features on, where each distance takes seconds."""


class FrechetCollector:
    """Grouped sums of features. Methods as in `Collector`."""

    def __init__(self, extractor: Extractor):
        self._extractor = extractor
        self._groups: GroupedStatistics | None = None

    def update(self, features: Features, probabilities: npt.NDArray[np.float64] | None) -> None:
        d = features.shape[1]
        if d > MAX_DIM:
            raise DataError(
                f"extractor {self._extractor.name!r} gives {d} features an image: a Frechet distance takes at most "
                f"{MAX_DIM}; use an extractor of lower dimension for images of this size"
            )
        if self._groups is None:
            self._groups = GroupedStatistics(d, GROUPS if d <= WIDE else WIDE_GROUPS)
        self._groups.update(features)

    def score(self, reference: Reference | None) -> Score:
        assert self._groups is not None
        assert reference is not None
        groups = self._groups.groups
        n = sum(group.n for group in groups)
        if n < 2 * len(groups):
            raise DataError(f"{n} generated images are too few for a Frechet distance: give {2 * len(groups)}")
        result = jackknife_frechet(reference.frechet(self._extractor), groups, self._extractor.label)
        return Score(
            metric=self._extractor.metric_name,
            extractor=self._extractor.label,
            reference=reference.name,
            value=result.value,
            stderr=result.stderr,
            n=n,
            n_reference=reference.n(self._extractor),
            method=f"delete-a-group jackknife, {result.groups} groups of generated images",
            df=result.groups - 1,
            bias=result.bias,
            dim=len(groups[0].mean),
        )


MEMBER = Metric(collect=FrechetCollector, record_names=("fd", "fid"), default=True)
