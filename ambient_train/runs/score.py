"""From generated images to records: every extractor, reference and metric, with floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.records import Record, library_versions
from ambient_train.data.mixture import TrainingSet
from ambient_train.evaluation.features import Extractor, get_extractor
from ambient_train.evaluation.own_references import clean_uint8, references
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import Score, floor, score_images
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig


def extractors_for(names: Sequence[str], channels: int) -> list[Extractor]:
    """The extractors that take images of so many channels. Raises UsageError if none does."""
    every = [get_extractor(name) for name in names]
    fitting = [e for e in every if e.channels is None or channels in e.channels]
    if not fitting:
        raise UsageError(f"none of {', '.join(names)} takes images with {channels} channel(s)")
    return fitting


def score_run(
    config: TrainConfig,
    evaluation: EvalConfig,
    generated: np.ndarray,
    data: TrainingSet,
    nimg: int,
    *,
    wall_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Records of one set of generated images: every extractor, reference and metric, with the floors at the same n.

    Empty where there is nothing to score with: no clean image in the data, or no extractor that fits the images.

    extra of a record: interval95, bias, floor (the score of as many clean training images), memorisation_floor (the
    score of a model that repeats the clean training subset), share of noisy images, sampler.
    """
    targets = references(config.data, config.resolution, config.holdout, config.max_images)
    if not targets or not evaluation.extractors:
        return []
    chosen = extractors_for(evaluation.extractors, data.shape[0])
    versions = library_versions("torch", "numpy", "scipy")
    own = clean_uint8(data.clean_images()) if data.n_clean else None
    records = []
    for extractor in chosen:
        scores = score_images(generated, targets, [extractor], evaluation.metrics)
        for reference in targets.values():
            floors = _floors(targets.get("train-clean"), reference, len(generated), extractor, evaluation.metrics)
            memorised = _by_metric(
                floor(own, reference, len(generated), extractor, metrics=evaluation.metrics) if own is not None else []
            )
            for score in scores:
                if score.reference != reference.name:
                    continue
                details = {
                    "interval95": list(score.interval()),
                    "bias": score.bias,
                    "method": score.method,
                    "n_reference": score.n_reference,
                    "floor": floors.get(score.metric),
                    "memorisation_floor": memorised.get(score.metric),
                    "corruption": data.n_noisy / len(data),
                    "evaluation": evaluation.to_dict(),
                    **(extra or {}),
                }
                records.append(
                    Record(
                        source="train",
                        dataset=data.source.name,
                        n_clean=data.n_clean,
                        n_noisy=data.n_noisy,
                        sigma=_levels(data),
                        metric=score.metric,
                        extractor=score.extractor,
                        value=score.value,
                        stderr=score.stderr,
                        n_eval=score.n,
                        seed=config.seed,
                        config_hash=config.hash,
                        reference=score.reference,
                        duration_nimg=nimg,
                        versions=versions,
                        wall_s=wall_s,
                        extra=details,
                    )
                )
    return records


_FLOORS: dict[tuple[Any, ...], dict[str, float]] = {}


def _floors(
    train: Reference | None, reference: Reference, n: int, extractor: Extractor, metrics: Sequence[str]
) -> dict[str, float]:
    """Score of n clean training images against `reference`, computed once a process."""
    if train is None or train.images is None:
        return {}
    key = (id(train), id(reference), n, extractor.label, tuple(metrics))
    if key not in _FLOORS:
        _FLOORS[key] = _by_metric(floor(train.images, reference, n, extractor, metrics=metrics))
    return _FLOORS[key]


def _by_metric(scores: Sequence[Score]) -> dict[str, float]:
    return {s.metric: s.value for s in scores}


def _levels(data: TrainingSet) -> float | tuple[float, ...] | None:
    levels = sorted({float(s) for s in data.sigma_n.unique() if s > 0})
    if not levels:
        return None
    return levels[0] if len(levels) == 1 else tuple(levels)
