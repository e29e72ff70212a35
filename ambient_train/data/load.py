"""From a built-in name or a path to an `ImageSet` in memory; hashes of the ids decide which image is in which part."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import check_array_size
from ambient_train.data.formats.noise_arrays import StatedNoise, resized
from ambient_train.data.images import ImageSet as ImageSet  # for those who load and hold
from ambient_train.data.noise import unit_notes
from ambient_train.data.place import is_there, place, with_map
from ambient_train.data.readers import open_source
from ambient_train.data.resize import area_resize
from ambient_train.data.source import Source, prepare_command
from ambient_train.data.values import UNIT, ValueMap, told_in
from ambient_train.stateless import hash_uniform

Split = Literal["train", "heldout", "all"]
_CHUNK_BYTES = 256 * 2**20
_HOLDOUT, _SUBSET = 0x68656C646F7574, 0x737562736574


def load_images(
    spec: str,
    *,
    split: Split = "all",
    holdout: float | None = None,
    resolution: int | None = None,
    max_images: int | None = None,
) -> ImageSet:
    """Load a set of images into memory.

    spec: `digits`, `fashion`, `photos32`, `photos32:stride=4`, or a path. split: sources with a held-out part of their
    own (fashion, MNIST-format folders, CIFAR-10, trees with train/ and val/ or test/) use it for `heldout`, and `train`
    and `all` are both their training part. Otherwise an image is held out where a hash of its id is below `holdout`
    (0.2 for digits and 0.1 for others; 0 = none), and `all` is every image. resolution: area average to that many
    pixels a side. max_images: that many of the split, drawn by a hash of the id and therefore nested in the number.
    Raises UsageError for options that make no sense and DataError naming what cannot be used.
    """
    if split not in ("train", "heldout", "all"):
        raise UsageError(f"split {split!r} is not one of train, heldout, all")
    if holdout is not None and not 0 <= holdout < 1:
        raise UsageError(f"holdout must be a share in [0, 1), not {holdout}")
    if resolution is not None and (resolution < 2 or resolution % 2):
        raise UsageError(f"resolution must be an even number of pixels >= 2 (the network halves it), not {resolution}")
    if max_images is not None and max_images < 1:
        raise UsageError(f"max_images must be at least 1, not {max_images}")
    source = open_source(spec)
    if source.question:
        raise DataError(f"{spec}: {source.question}")
    ids = subset_ids(split_ids(source, split, holdout), max_images)
    images, size = _read(source, ids, resolution, spec)
    notes = [*source.notes, *(f"{n:,} converted: {what}" for what, n in _converted(source).items())]
    own = (None if column is None else column[ids] for column in (source.sigma_n, source.pattern))
    stated = StatedNoise(next(own), next(own), source.spectrum)
    noise = resized(stated, size, images.shape[-1], spec)
    sigma = noise.sigma
    if source.sigma_n is not None and sigma is not None and sigma.any():
        notes += _noise_notes(source.sigma_n[ids], sigma, images, told_in(source.values))
    labels = None if source.labels is None else source.labels[ids]
    if labels is not None and (labels < 0).any():
        notes.append(f"{int((labels < 0).sum()):,} of {len(labels):,} images have no label, so no labels are used")
        labels = None
    name = source.name if size == images.shape[-1] else f"{source.name}{resolution}"
    classes = None if labels is None else source.classes
    return ImageSet(
        name, images, labels, ids, sigma, classes, tuple(notes), source.values, noise.pattern, noise.spectrum
    )


def in_values(spec: str, values: ValueMap | None) -> str:
    """The source, its numbers mapped to pixels by `values`; as it is where either has no such map.

    Two sets are compared, or a network is used on others, by one map: each would find another for itself. Raises
    DataError for noisy counts of another gain, whose noise is another at the same brightness.
    """
    if values is None or not is_there(spec):
        return spec
    there, asked = with_map(spec, values.low, values.high, values.counts), place(spec).counts
    try:
        source = open_source(spec)
    except DataError:  # floats beyond [-1, 1] are numbers that only a map makes pixels
        try:
            open_source(there)
        except (DataError, UsageError):  # whoever reads it says what is wrong; a file of statistics holds no images
            return spec
        return there if asked in (None, values.counts) else spec
    found, noisy = source.values, source.sigma_n is not None and bool(source.sigma_n.any())
    if noisy and found is not None and found.counts not in (None, values.counts):
        known = "no counts" if values.counts is None else f"counts of gain {values.counts}"
        raise DataError(
            f"{spec}: counts of gain {found.counts}, but the images that these are used with are {known}, whose noise "
            "is another at the same brightness: give images of their kind, or use a network trained on these"
        )
    return there if found not in (None, values) else spec


def _geometry(source: Source, ids: np.ndarray, resolution: int | None, spec: str) -> tuple[np.ndarray, int, int]:
    """The first image [1, C, S, S], its side and the side to bring it to."""
    first = source.read(ids[:1])
    channels, height, width = first.shape[1:]
    if height != width:
        command = prepare_command(spec, first.shape, floats=first.dtype != np.uint8)
        raise DataError(f"{spec}: images of {width} x {height} are not square; `{command}` crops them")
    side = resolution or width
    if side % 2:
        raise DataError(f"{spec}: images of {width} x {width} cannot be halved; give an even resolution to resize them")
    check_array_size((len(ids), channels, side, side), first.itemsize, spec)
    return first, width, side


def _read(source: Source, ids: np.ndarray, resolution: int | None, spec: str) -> tuple[np.ndarray, int]:
    """Decode in chunks of bounded memory, resizing as we go: images, and the side they had in the source."""
    first, width, side = _geometry(source, ids, resolution, spec)
    channels = first.shape[1]
    images = np.empty((len(ids), channels, side, side), first.dtype)
    chunk = max(1, _CHUNK_BYTES // first.nbytes)
    for start in range(0, len(ids), chunk):
        images[start : start + chunk] = area_resize(source.read(ids[start : start + chunk]), side)
    return images, width


def subset_ids(ids: np.ndarray, count: int | None) -> np.ndarray:
    """`count` of the ids, drawn by a hash of each and therefore nested in the count, in ascending order."""
    if count is None or len(ids) <= count:
        return ids
    return np.sort(ids[np.argsort(hash_uniform(ids, _SUBSET), kind="stable")[:count]])


def split_ids(source: Source, split: Split, holdout: float | None) -> np.ndarray:
    """Ids of a part of the source, ascending: see `load_images`."""
    ids = np.arange(source.count, dtype=np.int64)
    if source.heldout is not None:
        if holdout is not None:
            raise UsageError(f"{source.name} comes with a held-out part of its own: leave holdout out")
        return ids[source.heldout] if split == "heldout" else ids[~source.heldout]
    if split == "all":
        return ids
    share = source.default_holdout if holdout is None else holdout
    if split == "heldout" and share == 0:
        raise UsageError(f"{source.name}: nothing is held out with holdout 0")
    if source.regions is not None:
        train, heldout = source.regions(share)
    else:
        rank = hash_uniform(ids if source.group is None else source.group, _HOLDOUT)
        heldout = rank < share
        if share and not heldout.any() and np.ptp(rank) > 0:  # of few images or scenes: the one that comes first
            heldout = rank == rank.min()
        train = ~heldout
    chosen = ids[heldout if split == "heldout" else train]
    if len(chosen) == 0:
        raise DataError(f"{source.name}: the {split} part of {source.count} images at holdout {share:g} is empty")
    return chosen


def _converted(source: Source) -> Counter[str]:
    return Counter() if source.tree is None else Counter(source.tree.converted.values())


def _noise_notes(stated: np.ndarray, sigma: np.ndarray, images: np.ndarray, told: tuple[float, str]) -> list[str]:
    """What happens to the noise that images came with: other levels at another size, units that cannot be."""
    notes = []
    if not np.array_equal(stated, sigma):
        factor, unit = told[0], "" if told[1] == UNIT else f" ({told[1]})"
        levels = np.unique(np.stack([stated, sigma], axis=1)[stated > 0], axis=0)  # by image: they may become alike
        pairs = list(dict.fromkeys(f"{a * factor:.3g} -> {b * factor:.3g}" for a, b in levels))
        text = ", ".join(pairs if len(pairs) <= 4 else [pairs[0], "...", pairs[-1]])
        notes.append(f"averaging pixels lowers the noise: levels {text} at {images.shape[-1]} pixels{unit}")
    return notes + unit_notes(stated, images.dtype == np.uint8)
