"""Inception Score, of extractors with a classifier; called `is` in records.

    IS = exp( mean_x KL( p(y | x) || p(y) ) ),  p(y) = mean_x p(y | x)

(Salimans et al. 2016), between 1 and the number of classes; higher is better. As there, the images are cut into 10
splits and the value is the mean of their scores. A split of m images is biased, so only numbers at the same n and
number of splits compare. Splits are dealt at random, so that images sorted by class do not end up sorted by split. It
is the Inception Score only with Inception's probabilities: with those of another classifier it is an analogue.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.features import Extractor, Features
from ambient_train.evaluation.metrics._base import Metric, Score
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.statistics import deal_groups

SPLITS = 10


class RunningInceptionScore:
    """Per split: the number of images, the sum of p(y | x) [classes], and the sum of sum_y p log p."""

    def __init__(self, classes: int, splits: int = SPLITS):
        if splits < 1:
            raise UsageError(f"an Inception Score needs at least 1 split, not {splits}")
        self._n = np.zeros(splits, np.int64)
        self._sum = np.zeros((splits, classes))
        self._negative_entropy = np.zeros(splits)

    def update(self, probabilities: npt.ArrayLike) -> RunningInceptionScore:
        """Add rows [m, classes] that sum to 1. Raises DataError if they do not."""
        p = np.asarray(probabilities, np.float64)
        if p.ndim != 2 or p.shape[1] != self._sum.shape[1]:
            raise DataError(f"class probabilities must be [m, {self._sum.shape[1]}], not of shape {p.shape}")
        if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-4)):
            raise DataError("class probabilities must be at least 0 and sum to 1 for every image")
        splits = deal_groups(int(self._n.sum()), len(p), len(self._n))
        entropies = (p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
        np.add.at(self._n, splits, 1)
        np.add.at(self._sum, splits, p)
        np.add.at(self._negative_entropy, splits, entropies)
        return self

    def scores(self) -> npt.NDArray[np.float64]:
        """The score of each split. Raises DataError if a split has no image."""
        if self._n.min() < 1:
            raise DataError(f"{self._n.sum()} images are too few for an Inception Score over {len(self._n)} splits")
        marginal = self._sum / self._n[:, None]
        cross = (marginal * np.log(np.where(marginal > 0, marginal, 1))).sum(axis=1)
        return np.exp(self._negative_entropy / self._n - cross)

    def mean_and_stderr(self) -> tuple[float, float]:
        """Mean over splits and its standard error (std / sqrt(splits)); the error is NaN-free: 0 for one split."""
        scores = self.scores()
        stderr = float(scores.std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
        return float(scores.mean()), stderr


def inception_score(probabilities: npt.ArrayLike, splits: int = SPLITS) -> tuple[float, float]:
    """Inception Score of class probabilities [n, classes]: mean over `splits` and its standard error."""
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2:
        raise DataError(f"class probabilities must be [n, classes], not of shape {p.shape}")
    return RunningInceptionScore(p.shape[1], splits).update(p).mean_and_stderr()


class InceptionScoreCollector:
    """Running sums of the probabilities. Methods as in `Collector`."""

    def __init__(self, extractor: Extractor):
        self._extractor = extractor
        self._running = RunningInceptionScore(extractor.classes or 0)
        self._n = 0

    def update(self, features: Features, probabilities: npt.NDArray[np.float64] | None) -> None:
        assert probabilities is not None
        self._running.update(probabilities)
        self._n += len(probabilities)

    def score(self, reference: Reference | None) -> Score:
        value, stderr = self._running.mean_and_stderr()
        return Score(
            metric="is",
            extractor=self._extractor.label,
            reference="none",
            value=value,
            stderr=stderr,
            n=self._n,
            n_reference=None,
            method=f"Inception Score, mean of {SPLITS} splits",
            df=SPLITS - 1,
        )


MEMBER = Metric(
    collect=InceptionScoreCollector,
    record_names=("is",),
    lower_is_better=False,
    needs_reference=False,
    needs_probabilities=True,
)
