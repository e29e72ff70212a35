"""The one maker of a run's records: from scores of generated images to `Record`s, for train, sweep and evaluate.

What a record says of the run (`Subject`) comes from the job while it trains and from the manifest afterwards, so that
no two commands can tell it differently.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ambient_theory.shared.eigenvalues import EIGENVALUES
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.records import NATS, Record, library_versions
from ambient_train.data.mixture import TrainingSet
from ambient_train.evaluation.denoising import DenoisingError, total_nats
from ambient_train.evaluation.features import Extractor, get_extractor
from ambient_train.evaluation.floors import reference_floor
from ambient_train.evaluation.memorisation import SHARE, Memorisation, memorisation_check, rank_of
from ambient_train.evaluation.metrics import TABLE as METRICS
from ambient_train.evaluation.metrics import metric_name
from ambient_train.evaluation.own_references import clean_uint8, references
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import Score, floor, score_images
from ambient_train.runs.heldout import HeldOut
from ambient_train.runs.resolve import Job
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig

Floors = Mapping[tuple[str, str, str], float]
"""(metric, extractor label, reference) -> the score of real images."""


@dataclass(frozen=True)
class Subject:
    """What every record of a run says of the run. levels: distinct noise levels of its noisy images, ascending.
    eigenvalues: of the covariance of noise that is not white, as `shared.eigenvalues` lists them."""

    dataset: str
    n_clean: int
    n_noisy: int
    levels: tuple[float, ...]
    seed: int
    config_hash: str
    method: Mapping[str, Any]
    eigenvalues: list[list[float]] | None = None

    @classmethod
    def of_job(cls, job: Job) -> Subject:
        """Of a training that is resolved."""
        return cls.of_data(job.config, job.describe_data())

    @classmethod
    def of_data(cls, config: TrainConfig, data: Mapping[str, Any]) -> Subject:
        """Of a config and what `Job.describe_data` says of its images (a manifest keeps it)."""
        levels = tuple(float(s) for s in data["levels"])
        return cls(
            data["name"],
            data["n_clean"],
            data["n_noisy"],
            levels,
            config.seed,
            config.hash,
            method_of(config, data.get("noise")),
            data.get(EIGENVALUES),
        )

    @property
    def sigma_n(self) -> float | tuple[float, ...] | None:
        """As a record has it: one level, several, or None where nothing is noisy."""
        return self.levels[0] if len(self.levels) == 1 else self.levels or None

    @property
    def share(self) -> float:
        """Share of noisy images."""
        return self.n_noisy / (self.n_clean + self.n_noisy)

    def fields(self) -> dict[str, Any]:
        """The fields of a record that are the run's own."""
        return {
            "source": "train",
            "dataset": self.dataset,
            "n_clean": self.n_clean,
            "n_noisy": self.n_noisy,
            "sigma_n": self.sigma_n,
            "seed": self.seed,
            "config_hash": self.config_hash,
            "method": dict(self.method),
            "regime": self.regime,
        }

    @property
    def regime(self) -> str:
        """`clean`, `noisy-only` or `mixture`."""
        if self.n_noisy == 0:
            return "clean"
        return "mixture" if self.n_clean else "noisy-only"


def method_of(config: TrainConfig, noise: str | None = None) -> dict[str, Any]:
    """How a network was trained, whatever the data: what must agree before two runs may be compared.

    noise: kind of the noise of the noisy images, None for white. The choices that people compare by name, and
    `settings`, six hex digits of all others (network, optimiser, averages, precision, ...), so that no two ways of
    training are ever taken for one.
    """
    settings = config.training()
    named = ("weight", "draw", "buffer", "dropout", *(("told_sigma",) if "told_sigma" in settings else ()))
    rest = {k: v for k, v in settings.items() if k not in named}
    further = {}
    if config.consistency:
        further["consistency"] = f"{config.consistency_form} {config.consistency:g}"
    if config.one_step:
        _, first_stage, images = config.teacher.split("/")
        further["distilled"] = f"{first_stage} at {images}"
    if noise is not None:
        further["noise"] = noise
    return {**{k: settings[k] for k in named}, **further, "settings": content_hash(rest, 6)}


def make_records(
    subject: Subject,
    scores: Sequence[Score],
    evaluation: EvalConfig,
    nimg: int,
    *,
    floors: Floors,
    memorised: Floors,
    memorisation: Memorisation | None = None,
    checkpoint: str = "last",
    wall_s: float | None = None,
) -> list[Record]:
    """One record a score against a reference; those without one are no distances.

    nimg: images trained on. floors: scores of as many clean training images; memorised: of a model that repeats its
    clean training images. memorisation: whether the images are copies of those. checkpoint: the rule by which the
    weights were chosen.

    extra of a record: interval95, bias, method of the interval, n_reference, features (their number), floor,
    memorisation_floor, corruption (share of noisy images), and where it was measured memorisation (shares of generated
    images that are nearer to a clean training image than held-out ones are, see `evaluation.memorisation`).
    """
    copied = {} if memorisation is None else {"memorisation": summary_of(memorisation)}
    versions = library_versions("torch", "numpy", "scipy")
    out = []
    for score in scores:
        if score.reference == "none":
            continue
        key = (score.metric, score.extractor, score.reference)
        out.append(
            Record(
                **subject.fields(),
                metric=score.metric,
                extractor=score.extractor,
                value=score.value,
                stderr=score.stderr,
                n_eval=score.n,
                reference=score.reference,
                duration_nimg=nimg,
                checkpoint=checkpoint,
                evaluation=evaluation.to_dict(),
                versions=versions,
                wall_s=wall_s,
                extra={
                    "interval95": list(score.interval()),
                    "bias": score.bias,
                    "method": score.method,
                    "n_reference": score.n_reference,
                    "features": score.dim,
                    "floor": floors.get(key),
                    "memorisation_floor": memorised.get(key),
                    "corruption": subject.share,
                    **copied,
                },
            )
        )
    return out


def summary_of(memorisation: Memorisation) -> dict[str, Any]:
    """What a record keeps of it."""
    return {
        "extractor": memorisation.extractor,
        "distance": memorisation.distance.share,
        "ratio": memorisation.ratio.share,
        "expected": memorisation.ratio.expected,
        "copies": memorisation.copies,
    }


def denoise_records(
    subject: Subject,
    error: DenoisingError,
    evaluation: EvalConfig,
    nimg: int,
    *,
    checkpoint: str = "last",
    wall_s: float | None = None,
) -> list[Record]:
    """One record a level (`denoise`, squared error per pixel) and one total (`nats` an image; see `total_nats`).

    extra: dim (pixels of an image), images (hash: errors of the same ones are paired), of the total also bits_per_dim.
    """
    total = total_nats(error)
    rows: list[tuple[str, float | None, float, float, dict[str, Any]]] = [
        ("denoise", level, value, stderr, {})
        for level, value, stderr in zip(error.levels, error.mean, error.stderr, strict=True)
    ]
    about = {"bits_per_dim": total.bits_per_dim, "sigma_min": total.sigma_min, "sigma_max": total.sigma_max}
    rows.append((NATS, None, total.value, total.stderr, about))
    common = {"dim": error.dim, "images": error.images, "corruption": subject.share}
    if subject.eigenvalues is not None:
        common[EIGENVALUES] = subject.eigenvalues
    versions = library_versions("torch", "numpy", "scipy")
    return [
        Record(
            **subject.fields(),
            metric=metric,
            level=level,
            extractor="none",
            value=value,
            stderr=stderr,
            n_eval=error.n,
            reference="heldout-clean",
            duration_nimg=nimg,
            checkpoint=checkpoint,
            evaluation={"seed": error.seed, "denoise": error.n},
            versions=versions,
            wall_s=wall_s,
            extra={**common, **more},
        )
        for metric, level, value, stderr, more in rows
    ]


def score_run(
    job: Job,
    data: TrainingSet,
    heldout: HeldOut,
    generated: np.ndarray,
    nimg: int,
    *,
    checkpoint: str = "last",
    wall_s: float | None = None,
) -> list[Record]:
    """Records of the images that a run generated: every extractor, reference and metric, with the floors at the same n.

    Without a clean image to compare with, the proximal scores against held-out noisy images, where the data have such.
    Empty where there is nothing to score with.
    """
    config, evaluation = job.config, job.evaluation
    targets = references(config.data, config.resolution, config.holdout, config.max_images)
    if not evaluation.extractors:
        return []
    if not targets:
        fitting = extractors_for(evaluation.extractors, data.shape[0])
        proximal = heldout.proximal_scores(generated, fitting, evaluation.metrics)
        return make_records(
            Subject.of_job(job),
            proximal,
            evaluation,
            nimg,
            floors={},
            memorised={},
            checkpoint=checkpoint,
            wall_s=wall_s,
        )
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
        memorisation=memorisation_of(generated, own, targets.get("heldout-clean"), chosen)
        if evaluation.memorisation
        else None,
        checkpoint=checkpoint,
        wall_s=wall_s,
    )


def may_be_copied(own: np.ndarray | None, heldout: Reference | None) -> bool:
    """Whether there is something to copy and something to compare with: two clean images or more, and held-out ones.

    Raises DataError for fewer held-out ones than the comparison takes.
    """
    if own is None or len(own) < 2 or heldout is None or heldout.images is None:
        return False
    return rank_of(SHARE, len(heldout.images)) > 0


def memorisation_of(
    generated: np.ndarray, own: np.ndarray | None, heldout: Reference | None, extractors: Sequence[Extractor]
) -> Memorisation | None:
    """Whether generated images are copies of `own`, the clean images trained on, in the last extractor's features.

    None where not `may_be_copied`.
    """
    if own is None or heldout is None or heldout.images is None or not may_be_copied(own, heldout):
        return None
    return memorisation_check(generated, own, heldout.images, extractors[-1])


def extractors_for(names: Sequence[str], channels: int) -> list[Extractor]:
    """The extractors that take images of so many channels. Raises UsageError if none does."""
    every = [get_extractor(name) for name in names]
    fitting = [e for e in every if e.channels is None or channels in e.channels]
    if not fitting:
        raise UsageError(f"none of {', '.join(names)} takes images with {channels} channel(s)")
    return fitting


def check_features(evaluation: EvalConfig, channels: int) -> None:
    """Build what the scores of a run will need, so that nothing is trained that cannot be scored.

    Raises UsageError for features that are not at hand or do not take such images, and for a metric of class
    probabilities that none of them gives; DataError for weights that cannot be read.
    """
    if not evaluation.extractors:
        return
    fitting = extractors_for(evaluation.extractors, channels)
    for name in evaluation.metrics:
        if METRICS[metric_name(name)].needs_probabilities and all(e.classes is None for e in fitting):
            raise UsageError(
                f"metric {name!r} needs class probabilities, and {', '.join(e.name for e in fitting)} gives none: add "
                "--extractor inception, or leave the metric out"
            )


_FLOORS: weakref.WeakKeyDictionary[Reference, dict[tuple[Any, ...], dict[str, float]]] = weakref.WeakKeyDictionary()
"""Of each reference as long as it lives: the place in memory of one that is gone may be another's."""


def floors_of(
    train: Reference | None,
    targets: Mapping[str, Reference],
    extractors: Sequence[Extractor],
    n: int,
    metrics: Sequence[str],
) -> Floors:
    """Scores of n clean training images against each reference, or where there are none of a part of the reference
    against its rest; computed once for each reference."""
    out: dict[tuple[str, str, str], float] = {}
    for name, reference in targets.items():
        known = _FLOORS.setdefault(reference, {})
        for extractor in extractors:
            key = (None if train is None else train.content_hash, n, extractor.label, tuple(metrics))
            if key not in known:
                if train is not None and train.images is not None:
                    made = floor(train.images, reference, n, extractor, metrics=tuple(metrics))
                else:
                    made = reference_floor(reference, n, extractor, metrics)
                known[key] = {s.metric: s.value for s in made}
            out |= {(metric, extractor.label, name): value for metric, value in known[key].items()}
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
