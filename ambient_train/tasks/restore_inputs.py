"""Which noisy images are to be restored, with their levels, and their clean originals where those are known.

    the run's own     the training set as its config made it; the originals of the noise added here are known
    --heldout         the run's held-out clean images, noised here by the rule of training
    --data            other images that say how noisy they are, or are told; originals from --originals

Whatever cannot be restored is refused here, before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.frames import FrameTree
from ambient_train.data.formats.trees import Tree
from ambient_train.data.images import ImageSet
from ambient_train.data.load import in_values, load_images, subset_ids
from ambient_train.data.noise_models import added_noise, noise_of_images
from ambient_train.data.noise_models.white import MEMBER as WHITE
from ambient_train.data.readers import open_source
from ambient_train.data.source import ArrayFile, Source
from ambient_train.data.values import values_of
from ambient_train.diffusion.sampler_settings import OneStep
from ambient_train.evaluation.own_references import clean_part, heldout_images
from ambient_train.interchange.load import Trained
from ambient_train.runs.resolve import load_training_images, make_training_set
from ambient_train.runs.whereabouts import saying_how_to_move, with_data_at, with_data_found
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.restore import RestoreOptions

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel

_FAR, _FAR_IN_NOISE = 1.5, 6.0
"""Pixels beyond 1.5 + 6 sigma_n are no image in [-1, 1] with noise sigma_n."""


@dataclass(frozen=True, eq=False)
class Noisy:
    """images: float32 in units of [-1, 1] (uint8 where they came so), sigma of each, in ascending order of ids.

    originals: clean pixels [n, C, H, W] float32, or None; known [n]: where they are the originals of noisy images.
    eight_bits: whether the originals are rounded to grey levels. heldout [n]: the part a whole source holds out, or
    None. tree: files that the images come from, one an id, at the size they have there; None for other sources. file:
    the file of arrays, likewise. noise: the model of the images' noise, in their order.
    """

    images: ImageSet
    originals: npt.NDArray[np.float32] | None = None
    known: npt.NDArray[np.bool_] | None = None
    eight_bits: bool = False
    heldout: npt.NDArray[np.bool_] | None = None
    tree: Tree | None = None
    file: ArrayFile | None = None
    noise: NoiseModel = WHITE

    @property
    def sigma_n(self) -> npt.NDArray[np.float32]:
        """Levels [n], 0 = clean."""
        assert self.images.sigma_n is not None
        return self.images.sigma_n

    @property
    def rows(self) -> npt.NDArray[np.intp]:
        """Positions of the noisy images."""
        return np.flatnonzero(self.sigma_n > 0)

    @property
    def of_counts(self) -> bool:
        """Whether the images are transformed counts."""
        return self.images.values is not None and self.images.values.counts is not None

    def at_most(self, count: int | None) -> Noisy:
        """`count` of the images, drawn by a hash of each id."""
        keep = np.isin(self.images.ids, subset_ids(self.images.ids, count))
        rows = torch.from_numpy(np.flatnonzero(keep))
        part: dict[str, Any] = {"images": self.images.subset(keep), "noise": self.noise.at(rows)}
        for name in ("originals", "known", "heldout"):
            column = getattr(self, name)
            part[name] = None if column is None else column[keep]
        return replace(self, **part)


def noisy_images(trained: Trained, options: RestoreOptions) -> Noisy:
    """What the options ask for, checked against the network. Raises UsageError and DataError, one sentence each."""
    if options.heldout:
        found = _of_heldout(trained, options.sigma_n)
    elif options.data is None:
        found = _of_run(trained, _own_config(trained))
    else:
        own = None if options.sigma_n or options.originals else _own_elsewhere(trained, options)
        found = _of_run(trained, own) if own is not None else _of_others(trained, options, options.data)
    found = found.at_most(options.max_images)
    if not len(found.rows):
        raise UsageError(f"{found.images.name}: all {len(found.images):,} images are clean: nothing to restore")
    check_fit(trained, found.images, found.noise)
    return found


def check_fit(trained: Trained, images: ImageSet, noise: NoiseModel = WHITE) -> None:
    """Raise DataError where the network cannot restore the images: size, channels, classes, levels, range."""
    network, name = trained.network, images.name
    if images.resolution != network.img_resolution:
        raise DataError(
            f"{name}: images of {images.resolution} x {images.resolution} pixels, but {trained.name} knows "
            f"{network.img_resolution} x {network.img_resolution}: give --resolution where that divides the size, or "
            "another run"
        )
    if images.channels != network.img_channels:
        raise DataError(
            f"{name}: images with {images.channels} channel(s), but {trained.name} knows {network.img_channels}: "
            "`ambient data prepare` converts them"
        )
    if network.label_dim and (images.labels is None or int(images.labels.max(initial=0)) >= network.label_dim):
        has = "have none" if images.labels is None else f"have labels up to {int(images.labels.max())}"
        raise DataError(f"{name}: {trained.name} is told one of {network.label_dim} classes, and these images {has}")
    assert images.sigma_n is not None
    levels, highest = images.sigma_n, highest_level(trained)
    top = float(noise.lowest_level(torch.from_numpy(levels.astype(np.float64))).max())
    if top > highest:
        hint = f" ({top:g} grey levels of 255 are {top / 127.5:.3g})" if top > 2 else ""
        raise DataError(
            f"{name}: noise of sigma {top:g}, but {trained.name} knows levels up to {highest:g} in units of [-1, 1]"
            f"{hint}: leave those images out"
        )
    if images.images.dtype != np.uint8 and images.values is None:
        pixels = np.abs(images.images).reshape(len(images), -1).max(axis=1, initial=0)
        reach = levels if images.pattern is None else levels * images.pattern.reshape(len(images), -1).max(axis=1)
        far = np.flatnonzero(pixels > _FAR + _FAR_IN_NOISE * reach)
        if len(far):
            worst = int(far[np.argmax(pixels[far])])
            raise DataError(
                f"{name}: {len(far):,} image(s) reach beyond what their noise explains, one has {pixels[worst]:.4g} at "
                f"sigma {float(levels[worst]):.3g}: pixels and levels must be in units of [-1, 1]"
            )


def highest_level(trained: Trained) -> float:
    """The highest noise level that the network is used at: that of the run's sampler, and its own bound."""
    sampler = None if trained.evaluation is None else trained.evaluation.sampler
    highest = 80.0 if sampler is None or isinstance(sampler, OneStep) else sampler.bounds[1]
    return min(highest, trained.network.sigma_max)


def cautions(trained: Trained, noisy: Noisy) -> list[str]:
    """Sentences on what this network cannot know about these images, and what may not have been stated of them."""
    data, out = trained.data, list[str]()
    if data and data.get("noise") and noisy.noise.white:
        out.append(
            f"these images are restored as of white noise, and {trained.name} was trained on noise that is not "
            f"({data['noise']}): if theirs is such, state its spectrum or maps beside sigma"
        )
    if not data or data["n_clean"] or not data["levels"]:
        return out
    lowest, level = float(data.get("lowest_level", min(data["levels"]))), float(noisy.sigma_n[noisy.rows].min())
    out += [
        f"{trained.name} saw no clean image: what it knows below sigma {lowest:.4g} is guessed from noisy ones, and "
        "samples, deviations and intervals go through those levels"
    ]
    if level < lowest * (1 - 1e-6):
        out.append(f"images of sigma {level:.4g} are cleaner than any that {trained.name} saw, and so is their mean")
    return out


# ---------------------------------------------------------------------------------------------------- the three sources


def _of_run(trained: Trained, config: TrainConfig) -> Noisy:
    with saying_how_to_move(config):
        source = load_training_images(config.data, config.resolution, config.holdout, config.max_images)
    mixture = make_training_set(config, source)
    if mixture.n_noisy == 0:
        raise UsageError(f"{trained.name} was trained on clean images only: give --heldout, or --data with noisy ones")
    order = torch.from_numpy(np.argsort(mixture.source.ids, kind="stable"))
    chosen = mixture.source.subset(order.numpy())
    noisy, levels = mixture.batch(order).numpy(), mixture.sigma_n[order].numpy().astype(np.float32)
    added = mixture.added[order].numpy()
    opened = open_source(config.data)
    return Noisy(
        replace(chosen, images=noisy, sigma_n=levels),
        chosen.pixels() if added.any() else None,
        added if added.any() else None,
        chosen.images.dtype == np.uint8,
        tree=_tree_of(opened.tree, config.data, chosen.resolution) if not added.any() else None,
        file=_file_of(opened, chosen.resolution) if not added.any() else None,
        noise=mixture.noise.at(order),
    )


def _of_heldout(trained: Trained, sigma_n: float | None) -> Noisy:
    config = _own_config(trained)
    every = heldout_images(config.data, config.resolution, config.holdout)
    clean = None if every is None else clean_part(every)
    if clean is None or not len(clean):
        raise UsageError(f"{trained.name}: no clean image of {config.data} is held out")
    levels = [sigma_n] if sigma_n is not None else [float(s) for s in (trained.data or {}).get("levels", ())]
    if not levels:
        raise UsageError(f"{trained.name} was trained without noise: give --sigma, the noise to add")
    sigma = np.array(levels)[np.arange(len(clean)) % len(levels)]
    ids = torch.from_numpy(clean.ids)
    pixels = torch.from_numpy(clean.pixels())
    noise = _noise_of_run(config, len(clean))
    z = noise.noise(config.seed, ids, pixels.shape[1:])
    noisy = noise.corrupt(pixels, torch.from_numpy(sigma), z).numpy()
    return Noisy(
        replace(clean, images=noisy, sigma_n=sigma.astype(np.float32)),
        pixels.numpy(),
        np.ones(len(clean), bool),
        clean.images.dtype == np.uint8,
        noise=noise,
    )


def _noise_of_run(config: TrainConfig, count: int) -> NoiseModel:
    """The model of noise for `count` images as the run's noisy ones have it: maps of pixels are theirs, in turn."""
    if config.noise:
        source = load_training_images(config.data, config.resolution, config.holdout, 1)
        return added_noise(config.noise, (source.channels, source.resolution, source.resolution))
    source = load_training_images(config.data, config.resolution, config.holdout, config.max_images)
    return noise_of_images(source).at(torch.from_numpy(source.noisy_in_turn(count)))


def _of_others(trained: Trained, options: RestoreOptions, data: str) -> Noisy:
    data = in_values(data, values_of(trained.data))
    images, heldout, tree, file = _whole(data, options.resolution)
    stated = images.sigma_n is not None and bool((images.sigma_n > 0).any())
    if stated and options.sigma_n is not None:
        raise UsageError(f"--sigma: {images.noise_summary()}; leave it out")
    if options.sigma_n is not None:
        images = replace(images, sigma_n=np.full(len(images), options.sigma_n, np.float32))
    elif images.sigma_n is None:
        raise UsageError(
            f"{data} does not say how noisy its images are: give --sigma, or state levels in a dataset.csv (columns "
            "file, sigma) or an array `sigma`; `ambient data check` shows what is read"
        )
    noise = noise_of_images(images)
    if options.originals is None:
        return Noisy(images, heldout=heldout, tree=tree, file=file, noise=noise)
    originals, *_ = _whole(in_values(options.originals, images.values), options.resolution)
    maps = (originals.values, images.values)
    if not (maps[0].like(maps[1]) if maps[0] is not None else maps[1] is None):
        own, of_noisy = ("pixels as they are" if made is None else f"values of {made}" for made in maps)
        raise DataError(
            f"{options.originals}: {own}, but {data} has {of_noisy}: give both as files of one kind of numbers, or "
            "both with one range, as in PATH:range=LOW..HIGH"
        )
    if images.values is not None and images.values.counts is not None and originals.already_noisy == len(originals):
        raise DataError(
            f"{options.originals}: counts without stated levels count as noisy: say that these are clean, by zeros in "
            "<stem>.sigma.npy beside them or an array `sigma`"
        )
    if originals.images.shape != images.images.shape:
        raise DataError(
            f"{options.originals}: {len(originals):,} images {originals.images.shape[1:]}, but {data} has "
            f"{len(images):,} of {images.images.shape[1:]}: originals are those of the noisy images, one each, in order"
        )
    known = np.asarray(images.sigma_n) > 0
    if originals.sigma_n is not None:
        known &= originals.sigma_n == 0
    return Noisy(images, originals.pixels(), known, originals.images.dtype == np.uint8, heldout, tree, file, noise)


def _whole(
    spec: str, resolution: int | None
) -> tuple[ImageSet, npt.NDArray[np.bool_] | None, Tree | None, ArrayFile | None]:
    """Every image of a source, its held-out part included, by ascending id; which are held out; its files."""
    source = open_source(spec)
    images = load_images(spec, split="all", resolution=resolution)
    heldout = None
    if source.heldout is not None:
        parts = (images, load_images(spec, split="heldout", resolution=resolution))
        order = np.argsort(np.concatenate([part.ids for part in parts]), kind="stable")
        heldout = np.repeat([False, True], [len(part) for part in parts])[order]
        columns: dict[str, Any] = {}
        for name in ("images", "labels", "ids", "sigma_n", "pattern"):
            arrays = [getattr(part, name) for part in parts]
            columns[name] = None if any(a is None for a in arrays) else np.concatenate(arrays)[order]
        images = replace(images, **columns)
    return images, heldout, _tree_of(source.tree, spec, images.resolution), _file_of(source, images.resolution)


def _file_of(source: Source, resolution: int) -> ArrayFile | None:
    """The file of arrays, where images keep their size."""
    return source.file if source.file and source.read(np.arange(1)).shape[-1] == resolution else None


def _tree_of(tree: Tree | None, spec: str, resolution: int) -> Tree | None:
    """The files of a folder or a zip, where images keep their size; None for sources whose names are no file names."""
    if tree is None or not (tree.folder or isinstance(tree, FrameTree) or spec.lower().endswith(".zip")):
        return None
    first, _ = tree.decode(0)
    return tree if first.shape[-1] == resolution else None


def _own_config(trained: Trained) -> TrainConfig:
    """The run's config, with its data where they are now."""
    if trained.config is None:
        raise UsageError(f"{trained.name} comes from no run of ambient train: give --data with noisy images")
    return with_data_found(trained.config, trained.data)


def _own_elsewhere(trained: Trained, options: RestoreOptions) -> TrainConfig | None:
    """The run's config where --data is the new place of the run's own images: their hash decides."""
    if trained.config is None or options.data is None:
        return None
    return with_data_at(trained.config, options.data, options.resolution)
