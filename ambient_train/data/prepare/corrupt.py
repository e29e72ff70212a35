"""A data set with its noise written down: what training would have added, as an .npz that is never noised again.

Image i is y_i = x_i + n_i in units of [-1, 1], float32, never clipped; which images are noisy, and their n_i, are those
of `corrupt` for the same seed: sigma z_i for white noise. The file has `images`, `labels` and `classes` (where there
are any), `sigma` (one level an image, or one a pixel for a variance map, 0 = clean), `spectrum` for correlated noise,
`values` (the gain) for counts, whose images hold brightness x + 1, and `heldout` (the images that training keeps apart;
they stay clean), in the order of the source, so that ids, and with them every other random draw, are those of the
source too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_file
from ambient_train.data.counts import counts
from ambient_train.data.formats.mapped import IN_DATA
from ambient_train.data.images import ImageSet
from ambient_train.data.load import load_images
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.noise_models._numbers import add_counts
from ambient_train.data.noise_models.poisson_gaussian import NAME as COUNTS
from ambient_train.data.noise_models.poisson_gaussian import counts_of
from ambient_train.data.place import Counts
from ambient_train.data.prepare.archives import npy_stream, write_npy
from ambient_train.data.prepare.options import CorruptOptions
from ambient_train.data.values import ValueMap

_BLOCK = 1024


@dataclass(frozen=True)
class CorruptedSet:
    """What was written. count: all images, of which clean + noisy are for training and `heldout` are kept apart."""

    dest: str
    count: int
    clean: int
    noisy: int
    heldout: int
    sigma: float
    seed: int
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape), "notes": list(self.notes)}


def write_corrupted(
    source: str,
    dest: Path,
    options: CorruptOptions,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> CorruptedSet:
    """Write DEST (.npz) from a source with a share of its training images at noise sigma_n.

    Training on DEST with the same seed and share sees the same images, noise, held-out part and draws as training on
    the source with that sigma_n. The one difference: levels are stored as float32, so sigma_n is the float32 nearest
    to it (0.2 becomes 0.2 + 3e-9; exact for 0.25 or 0.5). Noise levels of a source that is noisy already are kept.
    Raises UsageError for options that make no sense, DataError for sources that cannot be read or placed.
    """
    if dest.suffix.lower() != ".npz":
        raise UsageError(f"{dest}: the name must end in .npz (float images do not fit into PNGs)")
    if dest.exists() and not overwrite:
        raise UsageError(f"{dest} exists: give another name, or --overwrite")
    if not dest.parent.is_dir():
        raise DataError(f"{dest.parent}: no such directory")
    part = load_images(source, split="train", resolution=options.resolution)
    heldout = load_images(source, split="heldout", resolution=options.resolution)
    count = len(part) + len(heldout)
    if not np.array_equal(np.sort(np.concatenate([part.ids, heldout.ids])), np.arange(count)):
        raise UsageError(
            f"{source}: some of its images are neither for training nor held out, so ids would not be those of the "
            "source: use one without overlapping images"
        )
    n_clean, n_noisy = counts(len(part), keep=1.0, corruption=options.share)
    kind, _, argument = options.noise.partition(":")
    counting = counts_of(argument, options.sigma_n) if kind == COUNTS else None
    if counting and (part.already_noisy or heldout.already_noisy or part.values is not None):
        raise UsageError(f"{source}: --noise {COUNTS} is for clean images in units of [-1, 1] or of 8 bits")
    mixture = corrupt(
        part,
        n_clean=n_clean,
        n_noisy=n_noisy,
        sigma_n=options.sigma_n,
        seed=options.seed,
        noise="" if counting else options.noise,
    )
    if not mixture.noise.white and heldout.already_noisy:
        raise UsageError(
            f"{source}: its held-out part came with noise: write its noise down as it is, with white noise"
        )
    columns: dict[str, np.ndarray] = {"sigma": np.zeros(count, np.float32), "heldout": np.zeros(count, bool)}
    columns["sigma"][mixture.source.ids] = mixture.sigma_n.numpy()
    columns["heldout"][heldout.ids] = True
    if heldout.sigma_n is not None:
        columns["sigma"][heldout.ids] = heldout.sigma_n
    columns |= _not_white(mixture, columns["sigma"])
    if part.labels is not None and heldout.labels is not None:
        columns["labels"] = np.zeros(count, np.int64)
        columns["labels"][part.ids], columns["labels"][heldout.ids] = part.labels, heldout.labels
    if part.classes is not None:
        columns["classes"] = np.array(part.classes)
    if part.values is not None:
        columns["values"] = part.values.to_bytes()
    if counting:  # the images hold brightness, x + 1
        line = Counts(counting[0], counting[1] ** 2)
        columns["values"] = ValueMap(0.0, 2.0, "float32", "npz", line).to_bytes(**{IN_DATA: True})
    shape = mixture.shape
    with atomic_file(dest) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with npy_stream(archive, "images", np.dtype(np.float32), (count, *shape)) as stream:
            for done, block in _blocks(mixture, heldout, count, counting):
                stream.write(block.tobytes())
                progress("write", done, count)
        for name, column in columns.items():
            write_npy(archive, name, column)
    amounts = (mixture.n_clean, mixture.n_noisy, len(heldout))
    return CorruptedSet(str(dest), count, *amounts, options.sigma_n, options.seed, shape, part.notes)


def _not_white(mixture: TrainingSet, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """What states the noise beside its levels [N]: maps of every pixel in their place, or a spectrum."""
    kind = mixture.noise.describe()
    if "pattern" not in kind:
        return kind
    pattern = kind["pattern"]
    maps = sigma.reshape(-1, 1, 1, 1) * np.ones((1, *pattern.shape[1:]), np.float32)
    own = mixture.sigma_n.numpy().astype(np.float32).reshape(-1, 1, 1, 1)
    maps[mixture.source.ids] = own * pattern
    return {"sigma": maps}


def _blocks(
    mixture: TrainingSet, heldout: ImageSet, count: int, counting: tuple[float, float] | None
) -> Iterator[tuple[int, np.ndarray]]:
    """(images done, float32 [b, C, H, W]) in the order of the ids. counting: gain and read noise, of counts."""
    place = np.empty(count, np.int64)
    place[mixture.source.ids] = np.arange(len(mixture))
    place[heldout.ids] = -1 - np.arange(len(heldout))
    for start in range(0, count, _BLOCK):
        at = place[start : start + _BLOCK]
        out = np.empty((len(at), *mixture.shape), np.float32)
        train = at >= 0
        if counting is None and train.any():
            out[train] = mixture.batch(torch.from_numpy(at[train])).numpy()
        elif counting is not None:
            rows = at[train]
            x, noisy = mixture.source.pixels(rows), mixture.added[torch.from_numpy(rows)].numpy()
            out[train] = x + 1
            drawn = add_counts(x[noisy], mixture.source.ids[rows[noisy]], mixture.seed, *counting)
            out[np.flatnonzero(train)[noisy]] = drawn
        if not train.all():
            out[~train] = heldout.pixels(-1 - at[~train]) + (counting is not None)
        yield start + len(at), out
