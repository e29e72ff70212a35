"""Scores of generated images: each a value with its standard error, extractor, reference, n and method.

The metrics are a table (`metrics`). The finite-sample bias of one that has it is not subtracted but reported (`bias`),
and `floor` gives the score that real images would get at the same n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.images import to_uint8
from ambient_train.evaluation.features import Extractor, Images
from ambient_train.evaluation.metrics import TABLE, metric_name
from ambient_train.evaluation.metrics._base import SCHEMA, Metric, Score
from ambient_train.evaluation.references import Reference, as_references

__all__ = ["SCHEMA", "Score", "average_seeds", "floor", "score_images"]

_CHUNK = 1000


def score_images(
    generated: Images | Iterable[Images],
    references: Mapping[str, npt.NDArray[np.uint8] | Reference],
    extractors: Sequence[Extractor],
    metrics: Sequence[str] | None = None,
) -> list[Score]:
    """Score generated images against every reference in every extractor's features.

    generated: uint8 [n, C, H, W], or an iterable of such batches (each seen once; memory does not grow with n).
    Floats in [-1, 1] are clipped and rounded to uint8 first. references: images uint8 or `Reference` objects by name;
    pass `Reference` objects to keep their features between calls. metrics: see `metric_name`, None = the default ones.
    A metric is left out where it cannot be had: one that needs images, for references known by statistics alone, one
    that needs class probabilities, for extractors without a classifier. Ordered by extractor, reference, metric;
    those that need no reference first.

    Raises UsageError for unknown metrics, DataError for images that an extractor or a metric cannot use.
    """
    chosen = _metrics(metrics)
    if not extractors:
        raise UsageError("no extractor given")
    targets = as_references(references) if any(m.needs_reference for m in chosen) else []
    collectors = [_Collectors(extractor, chosen) for extractor in extractors]
    for batch in _batches(generated):
        for collector in collectors:
            collector.update(batch)
    return [
        score for collector in collectors for reference in (None, *targets) for score in collector.scores(reference)
    ]


def _metrics(names: Sequence[str] | None) -> list[Metric]:
    """Members without repetition, in the order asked for, or the default ones in the table's order."""
    if names is None:
        return [TABLE[name] for name in TABLE if TABLE[name].default]
    return [TABLE[name] for name in dict.fromkeys(metric_name(name) for name in names)]


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
    metrics: Sequence[str] | None = None,
) -> list[Score]:
    """The score of a generator that resamples `real`: n images drawn from it, against `reference`.

    Drawn without replacement if `real` holds n images or more, else with. With all clean images this is the floor that
    n and the reference's own finite size leave to a perfect model; with the small clean subset of a training run
    it is the memorisation floor: what a model reaches that does nothing but repeat those images. `drawn` of the scores
    says which. Where there are no real images but the reference's own, see `floors.reference_floor`.
    """
    if n < 2:
        raise UsageError(f"a floor needs at least 2 images, not {n}")
    if len(real) < 1:
        raise DataError("a floor needs real images to draw from, there are none")
    repeat = len(real) < n
    # not `stateless`, which would draw others and so move every floor on record
    chosen = np.random.default_rng([seed, 0x666C6F6F72]).choice(len(real), size=n, replace=repeat)
    target = reference if isinstance(reference, Reference) else Reference("reference", reference)
    drawn = "with replacement" if repeat else "without replacement"
    how = f"{n} drawn from {len(real)} real images {drawn}"
    scores = score_images(real[chosen], {target.name: target}, [extractor], metrics)
    return [replace(score, method=f"floor: {how}; {score.method}", drawn=drawn) for score in scores]


class _Collectors:
    """The collectors of all metrics in one extractor's features, which are computed once a batch."""

    def __init__(self, extractor: Extractor, metrics: Sequence[Metric]):
        self.extractor = extractor
        usable = [m for m in metrics if extractor.classes is not None or not m.needs_probabilities]
        self._members = [(metric, metric.collect(extractor)) for metric in usable]
        self._classify = any(metric.needs_probabilities for metric in usable)

    def update(self, images: npt.NDArray[np.uint8]) -> None:
        if not self._members:
            return
        if self._classify:
            features, probabilities = self.extractor.with_probabilities(images)
        else:
            features, probabilities = self.extractor(images), None
        for _, collector in self._members:
            collector.update(features, probabilities)

    def scores(self, reference: Reference | None) -> Iterator[Score]:
        """Those that need a reference, or, for None, those that need none."""
        for metric, collector in self._members:
            if metric.needs_reference == (reference is not None) and (score := collector.score(reference)) is not None:
                yield score


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
