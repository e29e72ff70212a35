"""The denoising error of any trained network on held-out clean images, without generating one: what a price needs.

A run or an export of one is measured as it remembers: on its own held-out images, at the levels of its sampler. Another
network (an EDM snapshot, `hf:`), or a run on other data, is measured on the held-out part of the data that are named,
at the levels of the sampler's defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.progress import Listener, Progress, progress_listener
from ambient_train.data.images import ImageSet
from ambient_train.data.load import in_values, load_images
from ambient_train.data.place import is_there
from ambient_train.data.values import values_of
from ambient_train.diffusion.generate import denoiser
from ambient_train.diffusion.sampler_settings import OneStep, SamplerConfig
from ambient_train.evaluation.denoising import LEVELS, denoising_error, log_levels, quick_part
from ambient_train.evaluation.own_references import clean_part
from ambient_train.interchange.load import Trained, is_trained, load_trained
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.runs.resolve import load_training_images
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.training.world import choose_device


def measure_denoising(
    source: str | os.PathLike[str],
    *,
    data: str | None = None,
    resolution: int | None = None,
    images: int = 1000,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """E(s) as `DenoisingError.to_dict()` gives it, and: dataset; n_clean, n_noisy (None where nobody knows).

    source: as `load_trained` takes it. data, resolution: images to denoise in place of the run's own. images: at most
    so many, drawn by a hash of the id. Raises UsageError for a source that is no network, or one without data;
    DataError where no clean image is held out or the images do not fit the network.
    """
    if not is_trained(source):
        raise UsageError(
            f"{source}: neither records nor a network (a run, an exported directory, an EDM .pkl, hf:NAME)"
        )
    place = choose_device(device)
    trained = load_trained(source, device=place)
    one_thread_for_small(trained.arch, place)
    if trained.one_step:
        raise UsageError(f"{source} is a one-step generator and denoises nothing: give the run it was distilled from")
    evaluation = trained.evaluation or EvalConfig()
    chosen, own = _images(trained, data, resolution, images, evaluation.seed)
    sampler = evaluation.sampler if own else SamplerConfig()
    assert not isinstance(sampler, OneStep)
    low, high = sampler.bounds
    network = trained.network
    shape = (network.img_channels, network.img_resolution, network.img_resolution)
    if chosen.images.shape[1:] != shape:
        raise DataError(
            f"{chosen.name}: images of shape {tuple(chosen.images.shape[1:])} do not fit a network of {shape}: "
            "choose --data and --resolution of its kind"
        )
    with progress_listener(quiet) as listener:
        found = denoising_error(
            denoiser(network, trained.precision),
            chosen.images,
            chosen.ids,
            log_levels(low, high, LEVELS),
            seed=evaluation.seed,
            class_labels=_labels(trained, chosen),
            device=place,
            on_progress=_heard(listener),
        )
    about = trained.data if own and trained.data is not None else {}
    counts = {"n_clean": about.get("n_clean"), "n_noisy": about.get("n_noisy")}
    return {**found.to_dict(), "dataset": chosen.name, **counts}


def _images(trained: Trained, data: str | None, resolution: int | None, most: int, seed: int) -> tuple[ImageSet, bool]:
    """Held-out clean images, and whether they are of the data that the network was trained on."""
    config, own = trained.config, False
    if config is not None:
        stored = (trained.data or {}).get("path")
        here = config.data if stored is None or not is_there(stored) else stored
        place = in_values(data, values_of(trained.data)) if data else here
        side = resolution or config.resolution
        own = data is None or (side == config.resolution and _same(replace(config, data=place)))
        with _named(config.data, data):
            every = load_images(place, split="heldout", holdout=config.holdout if own else None, resolution=side)
    elif data is None:
        raise UsageError(f"{trained.name}: this network does not say on what it was trained: give --data")
    else:
        every = load_images(data, split="heldout", resolution=resolution or trained.network.img_resolution)
    clean = clean_part(every)
    chosen = clean.subset(quick_part(clean.ids, seed, most))
    if len(chosen) < 2:
        raise DataError(f"{every.name}: no clean image is held out, so the error of a denoiser cannot be measured")
    return chosen, own


@contextmanager
def _named(trained_on: str, data: str | None) -> Iterator[None]:
    """Where the run's data are not to be found, say how to name their new place."""
    try:
        yield
    except DataError as error:
        if data is not None or is_there(trained_on):
            raise
        raise DataError(f"{error}; if the run's data moved, give --data with their new place") from None


def _same(config: Any) -> bool:
    """Whether the data at the config's place are those of the run: their hash decides."""
    try:
        found = load_training_images(config.data, config.resolution, config.holdout, config.max_images)
    except UsageError:
        return False
    return bool(found.content_hash[:16] == config.data_hash)


def _labels(trained: Trained, images: ImageSet) -> torch.Tensor | None:
    classes = trained.network.label_dim
    if not classes:
        return None
    if images.labels is None:
        raise DataError(f"{images.name}: the network is told classes, and the held-out images have none")
    return torch.nn.functional.one_hot(torch.from_numpy(images.labels), classes).float()


def _heard(listener: Listener) -> Any:
    return lambda done, total: listener(Progress("denoising", done, total))
