"""Scores of generated images: each a value with its standard error, extractor, reference, n and method.

Frechet distance (`fd`, or `fid` in Inception features) and kernel distance (`kid`), each with a delete-a-group
jackknife. The errors are those of the generated images for a fixed model and a fixed reference; the
spread over training seeds is for the caller to add. No bootstrap: resampling images with replacement biases a
Frechet distance upward. The finite-sample bias is not subtracted but reported (`bias`), and `floor` gives the score
that real images would get at the same n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.images import to_uint8
from ambient_train.evaluation.extractors.features import MAX_DIM, Extractor, Images
from ambient_train.evaluation.frechet import jackknife_frechet
from ambient_train.evaluation.inception_score import SPLITS, RunningInceptionScore
from ambient_train.evaluation.kid import kernel_distance
from ambient_train.evaluation.references import KERNEL_IMAGES, Reference, as_references
from ambient_train.evaluation.statistics import GroupedStatistics

SCHEMA = "ambient.score/1"
METRICS = ("fd", "kid")
ALL_METRICS = (*METRICS, "is")
GROUPS = 20
WIDE_GROUPS, WIDE = 10, 1024
_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with its uncertainty.

    metric: `fd`, `fid` (Inception only), `kid`, `is`. extractor: `name:hash8`. reference: name of what the images
    were compared with. stderr: standard error from the generated images. n: generated images; n_reference: images
    behind the reference, None if unknown. method: how the standard error came about. df: its degrees of freedom.
    bias: jackknife estimate of the finite-n bias contained in `value` (not subtracted), None where the estimator is
    unbiased or unknown. values: the scores of several generation seeds, where `value` is their mean.
    """

    metric: str
    extractor: str
    reference: str
    value: float
    stderr: float
    n: int
    n_reference: int | None
    method: str
    df: int
    bias: float | None = None
    values: tuple[float, ...] = ()
    schema: str = SCHEMA

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval `value -+ t stderr` with Student's t of `df` degrees of freedom."""
        if not 0 < confidence < 1:
            raise UsageError(f"confidence must lie between 0 and 1, not {confidence}")
        half = float(stats.t.ppf((1 + confidence) / 2, self.df)) * self.stderr
        return self.value - half, self.value + half

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first, with the 95 % interval; with several seeds also their spread."""
        d = asdict(self)
        values = list(d.pop("values"))
        seeds = {"values": values, "spread": self.spread, "min": min(values)} if values else {}
        return {"schema": d.pop("schema"), **d, "interval95": list(self.interval()), **seeds}

    @property
    def debiased(self) -> float:
        """`value - bias`: an estimate of the distance at infinitely many generated images, without a floor of its own.

        It leaves the bias of a finite reference in, may be negative, and is not what tables of FID contain.
        """
        return self.value - (self.bias or 0.0)

    @property
    def spread(self) -> float | None:
        """Standard deviation over generation seeds, None for one seed. Published tables often give this, not stderr."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def score_images(
    generated: Images | Iterable[Images],
    references: Mapping[str, npt.NDArray[np.uint8] | Reference],
    extractors: Sequence[Extractor],
    metrics: Sequence[str] = METRICS,
) -> list[Score]:
    """Score generated images against every reference in every extractor's features.

    generated: uint8 [n, C, H, W], or an iterable of such batches (each seen once; memory does not grow with n).
    Floats in [-1, 1] are clipped and rounded to uint8 first. references: images uint8 or `Reference` objects by name;
    pass `Reference` objects to keep their features between calls. metrics: `fd` (or `fid`, the same: the extractor
    decides which name a score carries), `kid`, `is`.
    KID uses the first 10,000 generated images, and is left out for references that are known by statistics alone.
    `is` needs no reference (its `reference` is `none`) and is left out for extractors without a classifier.
    Ordered by extractor, reference, metric; `is` first.

    Raises UsageError for unknown metrics, DataError for images that an extractor or a metric cannot use.
    """
    metrics = list(dict.fromkeys("fd" if m == "fid" else m for m in metrics))
    if unknown := [m for m in metrics if m not in ALL_METRICS]:
        raise UsageError(f"unknown metric {unknown[0]!r}: choose from {', '.join(ALL_METRICS)}")
    if not extractors:
        raise UsageError("no extractor given")
    targets = as_references(references) if set(metrics) & set(METRICS) else []
    collectors = [_Collector(extractor, metrics) for extractor in extractors]
    for batch in _batches(generated):
        for collector in collectors:
            collector.update(batch)
    return [
        score
        for collector in collectors
        for part in (collector.without_reference(), *(collector.scores(reference) for reference in targets))
        for score in part
    ]


def average_seeds(scores: Sequence[Score]) -> Score:
    """One score from those of several generation seeds: value = mean, stderr = spread / sqrt(seeds), df = seeds - 1.

    The seeds' own spread replaces the jackknife: it is free of its assumptions. `bias` is the mean of the biases: each
    seed's finite-n bias stays in the mean. One score is returned as it is. Raises UsageError if the scores
    are not of one metric, extractor, reference and n.
    """
    if not scores:
        raise UsageError("no scores to average")
    first = scores[0]
    for name in ("metric", "extractor", "reference", "n", "n_reference"):
        if len(found := {getattr(score, name) for score in scores}) > 1:
            raise UsageError(f"scores of different {name} cannot be averaged: {', '.join(map(str, sorted(found)))}")
    if len(scores) == 1:
        return first
    values = np.array([score.value for score in scores])
    biases = [score.bias for score in scores if score.bias is not None]
    return replace(
        first,
        value=float(values.mean()),
        stderr=float(values.std(ddof=1) / math.sqrt(len(values))),
        method=f"mean of {len(values)} generation seeds",
        df=len(values) - 1,
        bias=float(np.mean(biases)) if len(biases) == len(scores) else None,
        values=tuple(values.tolist()),
    )


def floor(
    real: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8] | Reference,
    n: int,
    extractor: Extractor,
    *,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
) -> list[Score]:
    """The score of a generator that resamples `real`: n images drawn from it, against `reference`.

    Drawn without replacement if `real` holds n images or more, else with. With all clean images this is the floor that
    n and the reference's own finite size leave to a perfect model; with the small clean subset of a training run
    it is the memorisation floor: what a model reaches that does nothing but repeat those images.
    """
    if n < 2:
        raise UsageError(f"a floor needs at least 2 images, not {n}")
    if len(real) < 1:
        raise DataError("a floor needs real images to draw from, there are none")
    repeat = len(real) < n
    chosen = np.random.default_rng([seed, 0x666C6F6F72]).choice(len(real), size=n, replace=repeat)
    target = reference if isinstance(reference, Reference) else Reference("reference", reference)
    how = f"{n} drawn from {len(real)} real images {'with' if repeat else 'without'} replacement"
    scores = score_images(real[chosen], {target.name: target}, [extractor], metrics)
    return [replace(score, method=f"floor: {how}; {score.method}") for score in scores]


class _Collector:
    """Grouped sums of one extractor's features, and the first of the features themselves for KID."""

    def __init__(self, extractor: Extractor, metrics: Sequence[str]):
        self.extractor = extractor
        self.metrics = tuple(metrics)
        self.n = 0
        self._groups: GroupedStatistics | None = None
        self._kept: list[npt.NDArray[np.float32]] = []
        self._kept_n = 0
        wanted = "is" in self.metrics and extractor.classes is not None
        self._inception = RunningInceptionScore(extractor.classes or 0) if wanted else None

    def update(self, images: npt.NDArray[np.uint8]) -> None:
        if self._inception is not None:
            features, probabilities = self.extractor.with_probabilities(images)
            self._inception.update(probabilities)
        else:
            features = self.extractor(images)
        d = features.shape[1]
        if "fd" in self.metrics:
            if d > MAX_DIM:
                raise DataError(
                    f"extractor {self.extractor.name!r} gives {d} features an image: a Frechet distance takes at most "
                    f"{MAX_DIM}; use an extractor of lower dimension for images of this size"
                )
            if self._groups is None:
                self._groups = GroupedStatistics(d, GROUPS if d <= WIDE else WIDE_GROUPS)
            self._groups.update(features)
        if "kid" in self.metrics and self._kept_n < KERNEL_IMAGES:
            part = np.asarray(features[: KERNEL_IMAGES - self._kept_n], np.float32)
            self._kept.append(part)
            self._kept_n += len(part)
        self.n += len(features)

    def scores(self, reference: Reference) -> Iterator[Score]:
        for metric in self.metrics:
            if metric == "fd":
                yield self._frechet(reference)
            elif metric == "kid" and reference.images is not None:
                yield self._kernel(reference)

    def without_reference(self) -> Iterator[Score]:
        if self._inception is not None:
            value, stderr = self._inception.mean_and_stderr()
            yield Score(
                metric="is",
                extractor=self.extractor.label,
                reference="none",
                value=value,
                stderr=stderr,
                n=self.n,
                n_reference=None,
                method=f"Inception Score, mean of {SPLITS} splits",
                df=SPLITS - 1,
            )

    def _frechet(self, reference: Reference) -> Score:
        assert self._groups is not None
        groups = self._groups.groups
        if self.n < 2 * len(groups):
            raise DataError(f"{self.n} generated images are too few for a Frechet distance: give {2 * len(groups)}")
        result = jackknife_frechet(reference.frechet(self.extractor), groups, self.extractor.label)
        return Score(
            metric=self.extractor.metric_name,
            extractor=self.extractor.label,
            reference=reference.name,
            value=result.value,
            stderr=result.stderr,
            n=self.n,
            n_reference=reference.n(self.extractor),
            method=f"delete-a-group jackknife, {result.groups} groups of generated images",
            df=result.groups - 1,
            bias=result.bias,
        )

    def _kernel(self, reference: Reference) -> Score:
        real = reference.features(self.extractor)
        result = kernel_distance(
            np.concatenate(self._kept), real, reference_mean=reference.kernel_mean(self.extractor), groups=GROUPS
        )
        return Score(
            metric="kid",
            extractor=self.extractor.label,
            reference=reference.name,
            value=result.value,
            stderr=result.stderr,
            n=self._kept_n,
            n_reference=len(real),
            method=f"unbiased MMD^2, all pairs; delete-a-group jackknife, {result.groups} groups of generated images",
            df=result.groups - 1,
        )


def _batches(generated: Images | Iterable[Images]) -> Iterator[npt.NDArray[np.uint8]]:
    """Batches of at most 1000 uint8 images. Raises DataError if there is no image at all."""
    parts = [generated] if isinstance(generated, np.ndarray | torch.Tensor) else generated
    seen = 0
    for part in parts:
        images = to_uint8(part)
        for start in range(0, len(images), _CHUNK):
            seen += 1
            yield images[start : start + _CHUNK]
    if not seen:
        raise DataError("no generated images to score")
