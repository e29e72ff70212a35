"""The one maker of a run's records: from scores of generated images to `Record`s, for train, sweep and evaluate.

What a record says of the run (`Subject`) comes from the job while it trains and from the manifest afterwards, so that
no two commands can tell it differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.records import Record, library_versions
from ambient_train.data.mixture import TrainingSet
from ambient_train.evaluation.features import Extractor, get_extractor
from ambient_train.evaluation.own_references import clean_uint8, references
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import Score, floor, score_images
from ambient_train.runs.resolve import Job
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig

Floors = Mapping[tuple[str, str, str], float]
"""(metric, extractor label, reference) -> the score of real images."""


@dataclass(frozen=True)
class Subject:
    """What every record of a run says of the run. levels: distinct noise levels of its noisy images, ascending."""

    dataset: str
    n_clean: int
    n_noisy: int
    levels: tuple[float, ...]
    seed: int
    config_hash: str
    method: Mapping[str, Any]

    @classmethod
    def of_job(cls, job: Job) -> Subject:
        """Of a training that is resolved."""
        return cls.of_data(job.config, job.describe_data())

    @classmethod
    def of_data(cls, config: TrainConfig, data: Mapping[str, Any]) -> Subject:
        """Of a config and what `Job.describe_data` says of its images (a manifest keeps it)."""
        levels = tuple(float(s) for s in data["levels"])
        method = {"weight": config.weight, "draw": config.draw, "buffer": config.buffer}
        return cls(data["name"], data["n_clean"], data["n_noisy"], levels, config.seed, config.hash, method)

    @property
    def sigma_n(self) -> float | tuple[float, ...] | None:
        """As a record has it: one level, several, or None where nothing is noisy."""
        return self.levels[0] if len(self.levels) == 1 else self.levels or None

    @property
    def regime(self) -> str:
        """`clean`, `noisy-only` or `mixture`."""
        if self.n_noisy == 0:
            return "clean"
        return "mixture" if self.n_clean else "noisy-only"


def make_records(
    subject: Subject,
    scores: Sequence[Score],
    evaluation: EvalConfig,
    nimg: int,
    *,
    floors: Floors,
    memorised: Floors,
    checkpoint: str = "last",
    wall_s: float | None = None,
) -> list[Record]:
    """One record a score. nimg: images trained on. floors: scores of as many clean training images; memorised: of a
    model that repeats its clean training images. checkpoint: the rule by which the weights were chosen.

    extra of a record: interval95, bias, method of the interval, n_reference, floor, memorisation_floor, corruption
    (share of noisy images).
    """
    versions = library_versions("torch", "numpy", "scipy")
    out = []
    for score in scores:
        key = (score.metric, score.extractor, score.reference)
        out.append(
            Record(
                source="train",
                dataset=subject.dataset,
                n_clean=subject.n_clean,
                n_noisy=subject.n_noisy,
                sigma_n=subject.sigma_n,
                metric=score.metric,
                extractor=score.extractor,
                value=score.value,
                stderr=score.stderr,
                n_eval=score.n,
                seed=subject.seed,
                config_hash=subject.config_hash,
                reference=score.reference,
                duration_nimg=nimg,
                method=dict(subject.method),
                checkpoint=checkpoint,
                regime=subject.regime,
                evaluation=evaluation.to_dict(),
                versions=versions,
                wall_s=wall_s,
                extra={
                    "interval95": list(score.interval()),
                    "bias": score.bias,
                    "method": score.method,
                    "n_reference": score.n_reference,
                    "floor": floors.get(key),
                    "memorisation_floor": memorised.get(key),
                    "corruption": subject.n_noisy / (subject.n_clean + subject.n_noisy),
                },
            )
        )
    return out


def score_run(
    job: Job, data: TrainingSet, generated: np.ndarray, nimg: int, *, wall_s: float | None = None
) -> list[Record]:
    """Records of the images that a run generated: every extractor, reference and metric, with the floors at the same n.

    Empty where there is nothing to score with: no clean image in the data, or no extractor that fits the images.
    """
    config, evaluation = job.config, job.evaluation
    targets = references(config.data, config.resolution, config.holdout, config.max_images)
    if not targets or not evaluation.extractors:
        return []
    chosen = extractors_for(evaluation.extractors, data.shape[0])
    scores = score_images(generated, targets, chosen, evaluation.metrics)
    own = clean_uint8(data.clean_images()) if data.n_clean else None
    n, metrics = len(generated), evaluation.metrics
    return make_records(
        Subject.of_job(job),
        scores,
        evaluation,
        nimg,
        floors=floors_of(targets.get("train-clean"), targets, chosen, n, metrics),
        memorised=memorisation_floors(own, targets, chosen, n, metrics),
        wall_s=wall_s,
    )


def extractors_for(names: Sequence[str], channels: int) -> list[Extractor]:
    """The extractors that take images of so many channels. Raises UsageError if none does."""
    every = [get_extractor(name) for name in names]
    fitting = [e for e in every if e.channels is None or channels in e.channels]
    if not fitting:
        raise UsageError(f"none of {', '.join(names)} takes images with {channels} channel(s)")
    return fitting


_FLOORS: dict[tuple[Any, ...], dict[str, float]] = {}


def floors_of(
    train: Reference | None,
    targets: Mapping[str, Reference],
    extractors: Sequence[Extractor],
    n: int,
    metrics: Sequence[str],
) -> Floors:
    """Scores of n clean training images against each reference; computed once a process."""
    out: dict[tuple[str, str, str], float] = {}
    if train is None or train.images is None:
        return out
    for name, reference in targets.items():
        for extractor in extractors:
            key = (id(train), id(reference), n, extractor.label, tuple(metrics))
            if key not in _FLOORS:
                made = floor(train.images, reference, n, extractor, metrics=tuple(metrics))
                _FLOORS[key] = {s.metric: s.value for s in made}
            out |= {(metric, extractor.label, name): value for metric, value in _FLOORS[key].items()}
    return out


def memorisation_floors(
    own: np.ndarray | None,
    targets: Mapping[str, Reference],
    extractors: Sequence[Extractor],
    n: int,
    metrics: Sequence[str],
) -> Floors:
    """Scores of n draws from `own`, the clean images that were trained on: of a model that only repeats them."""
    out: dict[tuple[str, str, str], float] = {}
    if own is None:
        return out
    for name, reference in targets.items():
        for extractor in extractors:
            made = floor(own, reference, n, extractor, metrics=tuple(metrics))
            out |= {(s.metric, extractor.label, name): s.value for s in made}
    return out
