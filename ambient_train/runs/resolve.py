"""From settings to one frozen job: the data is read, the amounts become counts, and what cannot work is refused.

Everything that a run will need is looked at here, before anything is written or trained: settings, amounts, labels,
the network's fit, features, and every image, the held-out part included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ambient_theory.shared.eigenvalues import EIGENVALUES
from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.load import ImageSet, load_images
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.noise_models import added_noise, noise_content, noise_name
from ambient_train.data.place import absolute
from ambient_train.diffusion.losses import TABLE as WEIGHTS
from ambient_train.evaluation.features import default_extractors
from ambient_train.evaluation.own_references import references
from ambient_train.runs.precision import settled
from ambient_train.runs.teacher import Teacher, check_start, content_of, read_teacher
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import TrainSettings
from ambient_train.settings.run_options import Schedule
from ambient_train.training.state import build_network
from ambient_train.training.world import choose_device

Loader = Callable[[str, int | None, float | None, int | None], ImageSet]
"""(data, resolution, holdout, max_images) -> the training images."""


@dataclass(frozen=True)
class Job:
    """A training that can begin: config, the images it trains on, how it is scored, until when, and its preset."""

    config: TrainConfig
    source: ImageSet
    evaluation: EvalConfig
    schedule: Schedule
    preset: str
    teacher: Teacher | None = None
    """What is distilled; None for a training from the start."""
    start: Mapping[str, Tensor] | None = None
    """Weights that the network begins from; None for random ones."""

    @property
    def dataset(self) -> str:
        """The name of the data set, for people and records; never a path."""
        return self.source.name

    @property
    def label_dim(self) -> int:
        """Classes that the network is told; 0 for an unconditional one."""
        return self.source.label_dim if self.config.cond else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.source.channels, self.source.resolution, self.source.resolution

    @property
    def levels(self) -> tuple[float, ...]:
        """Distinct noise levels of the noisy images that are used, ascending, in units of [-1, 1]."""
        came = self.source.already_noisy
        added = [self.config.sigma_n] if self.config.n_noisy > came else []
        if came == 0 or self.source.sigma_n is None:
            return tuple(added)
        every = self.training_set().sigma_n.unique().tolist()
        return tuple(sorted({float(f"{s:.6g}") for s in every} - {0.0}))  # stated levels come as float32

    def came_noisy(self) -> str:
        """A sentence on the noise that came with the data; empty where none came."""
        return self.source.noise_summary() if self.source.already_noisy else ""

    def describe_data(self) -> dict[str, Any]:
        """The data in a few facts that a manifest keeps, so that later commands need not read it."""
        return {
            "name": self.dataset,
            "hash": self.source.content_hash,
            "path": absolute(self.config.data),
            "images": len(self.source),
            "channels": self.source.channels,
            "resolution": self.source.resolution,
            "n_clean": self.config.n_clean,
            "n_noisy": self.config.n_noisy,
            "levels": list(self.levels),
            **self._describe_noise(),
            "label_dim": self.label_dim,
            "classes": None if self.source.classes is None else list(self.source.classes),
            **({} if self.source.values is None else {"values": self.source.values.to_dict()}),
        }

    def _describe_noise(self) -> dict[str, Any]:
        """Kind of the noise, the diffusion level above which the least noisy image is used, and the eigenvalues of its
        covariance relative to their mean; {} if white."""
        came_white = self.source.pattern is None and self.source.spectrum is None
        if not self.config.n_noisy or (came_white and not self.config.noise):
            return {}
        mixture = self.training_set()
        if mixture.noise.white:
            return {}
        noisy = torch.nonzero(mixture.sigma_n > 0)[:, 0]
        lowest = float(mixture.levels[noisy].min())
        name = noise_name(mixture.noise, self.config.noise)
        eigenvalues = mixture.noise.at(noisy).eigenvalues().to_lists()
        return {"noise": name, "lowest_level": float(f"{lowest:.6g}"), EIGENVALUES: eigenvalues}

    def training_set(self) -> TrainingSet:
        """The mixture. Raises DataError if the images are not those of the config's data hash."""
        return make_training_set(self.config, self.source)

    def check_references(self) -> None:
        """Read and decode all images that scores will need. Raises DataError naming what cannot be used."""
        c = self.config
        references(c.data, c.resolution, c.holdout, c.max_images)


def resolve(
    settings: TrainSettings,
    *,
    load: Loader | None = None,
    device: str = "auto",
    weights_of: Callable[[str], Mapping[str, Tensor]] | None = None,
) -> Job:
    """Read the data and settle what depends on it: counts, data hash, features that fit.

    load: may be given to share loaded images. device: where the job is to run, for a precision that is still `auto`.
    weights_of: reads a trained network, for `init`. Raises UsageError for contradictions, DataError for data that
    cannot be read.
    """
    asked = settled(settings, choose_device(device)).train
    source = (load or load_training_images)(asked.data, asked.resolution, asked.holdout, asked.max_images)
    n_clean, n_noisy = settings.amounts.of(len(source), source.already_noisy, asked.sigma_n)
    if asked.told_sigma is not None and n_noisy == 0:
        raise UsageError("--told-sigma is what the training is told of noisy images: there is none; leave it out")
    if asked.noise and n_noisy == 0:
        raise UsageError("--noise is the kind of the noise of noisy images: there is none; leave it out")
    noise_hash = ""
    if asked.noise:
        noise_hash = noise_content(added_noise(asked.noise, (source.channels, source.resolution, source.resolution)))
    asked = replace(asked, noise_hash=noise_hash)
    config = replace(asked, n_clean=n_clean, n_noisy=n_noisy, data_hash=source.content_hash[:16])
    evaluation = settings.evaluation
    if not evaluation.extractors:
        fitting = tuple(default_extractors(source.channels, source.resolution)[0])
        evaluation = replace(evaluation, extractors=fitting)
    teacher = read_teacher(Path(asked.distill).expanduser(), asked.distill_at) if asked.distill else None
    if teacher is not None:
        teacher.check(config)
        config = replace(config, teacher=teacher.identity)
    start = None
    if asked.init:
        if weights_of is None:
            raise UsageError("--init is not for this command: train with it, then name the run")
        start = weights_of(asked.init)
        config = replace(config, start=content_of(start))
    job = Job(config, source, evaluation, settings.schedule, settings.preset, teacher, start)
    _check_network(job)
    return job


def make_training_set(config: TrainConfig, source: ImageSet) -> TrainingSet:
    """The mixture of the config. Raises DataError if the images are not those of the config's data hash."""
    if config.data_hash and source.content_hash[:16] != config.data_hash:
        raise DataError(
            f"{config.data}: the images have changed (hash {source.content_hash[:16]}, the run has {config.data_hash})"
        )
    mixture = corrupt(
        source,
        n_clean=config.n_clean,
        n_noisy=config.n_noisy,
        sigma_n=config.sigma_n,
        seed=config.seed,
        noise=config.noise,
        told_sigma=config.told_sigma,
    )
    if config.noise and noise_content(mixture.noise) != config.noise_hash:
        raise DataError(f"--noise {config.noise}: the file has changed (it is not the noise of this run)")
    check_noise(config, mixture)
    return mixture


def check_noise(config: TrainConfig, mixture: TrainingSet) -> None:
    """Raise UsageError for a weight or an augmentation that would take the noise for another than it is."""
    if not mixture.noise.white and WEIGHTS[config.weight].needs_error:
        raise UsageError(
            f"weight {config.weight!r} compares images by one level of white noise each, and the noise here is not "
            "white: use weight 'x0' or 'y'"
        )
    why = mixture.noise.unlike_after(config.xflip or config.augment > 0, config.augment > 0)
    if why and mixture.n_noisy and (config.xflip or config.augment > 0):
        what = "--augment" if config.augment > 0 else "--xflip"
        raise UsageError(f"{what} would change the noise of the noisy images: {why}; leave it out")


def load_training_images(data: str, resolution: int | None, holdout: float | None, max_images: int | None) -> ImageSet:
    """The training part of a data set."""
    return load_images(data, split="train", resolution=resolution, holdout=holdout, max_images=max_images)


def _check_network(job: Job) -> None:
    """Raise UsageError where the network does not fit the images; it is built without memory."""
    if job.config.cond and job.source.labels is None:
        raise UsageError(f"--cond needs labels, and {job.config.data} has none")
    levels: Any = job.config.network.get("channel_mult", ())
    if isinstance(levels, Sequence) and job.source.resolution % 2 ** max(len(levels) - 1, 0):
        raise UsageError(
            f"images of {job.source.resolution} pixels cannot be halved {len(levels) - 1} times as the network asks: "
            "choose --resolution or another preset"
        )
    with torch.device("meta"):
        network = build_network(job.config, job.shape, job.label_dim)
    if job.start is not None:
        check_start(job.start, network, job.config.init)
