"""Image sets in memory: one array of pixels, a label, a stable identity and a noise level for each image.

`load_images` takes a built-in name or a path and gives an `ImageSet`. Pixels are x = uint8/127.5 - 1 in [-1, 1].
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.readers.limits import check_array_size
from ambient_train.data.readers.source import Source
from ambient_train.data.resize import area_resize

BUILT_IN = ("digits", "fashion", "photos32")
Split = Literal["train", "heldout", "all"]
_CHUNK_BYTES = 256 * 2**20
_HOLDOUT, _SUBSET = 0x68656C646F7574, 0x737562736574


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images [N, C, H, W], uint8 or float32 (float32 is in units of [-1, 1] and may exceed it for noisy data).

    labels int64 [N] or None. ids int64 [N]: stable identity of each image, its index in the sorted full source; every
    random draw that belongs to an image is keyed by it. sigma float32 [N]: standard deviation of the noise that is
    already in each image, in units of [-1, 1] (None = all clean).
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    ids: np.ndarray
    sigma: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        assert self.images.ndim == 4, self.images.shape
        assert self.images.dtype in (np.uint8, np.float32), self.images.dtype
        for name, dtype in (("ids", np.int64), ("labels", np.int64), ("sigma", np.float32)):
            column = getattr(self, name)
            assert (column is None and name != "ids") or (column.shape == (n,) and column.dtype == dtype), name

    def __len__(self) -> int:
        return len(self.images)

    @property
    def resolution(self) -> int:
        """Side of the square images, in pixels."""
        return self.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.images.shape[1]

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of pixels, labels, ids and noise levels; the name does not count."""
        digest = hashlib.sha256()
        for field in ("images", "labels", "ids", "sigma"):
            array = getattr(self, field)
            digest.update(f"{field} {None if array is None else (array.dtype.str, array.shape)}\n".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def pixels(self, index: np.ndarray | slice | None = None) -> np.ndarray:
        """float32 [n, C, H, W] in units of [-1, 1], of all images or of those at `index`."""
        return to_pixels(self.images if index is None else self.images[index])

    def subset(self, index: np.ndarray | slice) -> ImageSet:
        """The images at `index` (whole numbers, a mask or a slice), with their ids."""
        return replace(
            self,
            images=self.images[index],
            labels=None if self.labels is None else self.labels[index],
            ids=self.ids[index],
            sigma=None if self.sigma is None else self.sigma[index],
        )


def to_pixels(images: np.ndarray) -> np.ndarray:
    """float32 in units of [-1, 1]: uint8/127.5 - 1; floats are in these units already and are copied."""
    if images.dtype != np.uint8:
        return images.astype(np.float32)
    out = images.astype(np.float32)
    out /= np.float32(127.5)
    out -= np.float32(1)
    return out


def hash_uniform(ids: np.ndarray, purpose: int) -> np.ndarray:
    """Number in [0, 1) that depends on (purpose, id) alone: the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(purpose)
        for _ in range(2):
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def open_source(spec: str) -> Source:
    """The source that a built-in name or a path names, not decoded yet. Raises DataError or UsageError."""
    from ambient_train.data.readers import arrays, builtin, cifar, extras, idx, stacks

    base, _, argument = str(spec).partition(":")
    if base in ("digits", "fashion") and argument:
        raise UsageError(f"{spec}: {base} takes no option after the colon")
    if base == "digits":
        return builtin.digits()
    if base == "fashion":
        return builtin.fashion()
    if base == "photos32":
        return builtin.photos32(argument)
    if base == "hf":
        return extras.hugging_face_source(spec)
    path = Path(spec).expanduser()
    if not path.exists():
        raise DataError(f"{spec}: neither a file or directory nor a built-in set ({', '.join(BUILT_IN)})")
    name = path.resolve().name.split(".")[0] or "images"
    lower = path.name.lower()
    if path.is_dir() and idx.find_pair(path, "train") is not None:
        return idx.idx_folder(path, name)
    if extras.is_lmdb(path):
        return extras.lmdb_source(path, name)
    if cifar.is_cifar_folder(path):
        return cifar.cifar10(path)
    if path.is_dir() or lower.endswith(".zip"):
        return stacks.tree_source(path, name)
    if lower.endswith((".tar.gz", ".tgz", ".tar")):
        return cifar.cifar10(path)
    if lower.endswith(".npz"):
        return arrays.npz_file(path, name)
    if lower.endswith(".npy"):
        return arrays.npy_file(path, name)
    if re.search(r"[-.]idx\d-ubyte(\.gz)?$|\.idx(\.gz)?$", lower):
        return idx.idx_file(path, name)
    raise DataError(
        f"{spec}: a file of unknown kind; allowed are a folder, .zip, .npz, .npy, idx(.gz) and CIFAR-10 .tar.gz"
    )


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
    ids = subset_ids(split_ids(source, split, holdout), max_images)
    images, size = _read(source, ids, resolution, spec)
    sigma = None if source.sigma is None else _resized_sigma(source.sigma[ids], size, images.shape[-1], spec)
    labels = None if source.labels is None else source.labels[ids]
    if labels is not None and (labels < 0).any():
        labels = None
    name = source.name if size == images.shape[-1] else f"{source.name}{resolution}"
    return ImageSet(name=name, images=images, labels=labels, ids=ids, sigma=sigma)


def _read(source: Source, ids: np.ndarray, resolution: int | None, spec: str) -> tuple[np.ndarray, int]:
    """Decode in chunks of bounded memory, resizing as we go: images, and the side they had in the source."""
    first = source.read(ids[:1])
    channels, height, width = first.shape[1:]
    if height != width:
        raise DataError(f"{spec}: images of {width} x {height} are not square; `ambient data prepare` crops them")
    side = resolution or width
    if side % 2:
        raise DataError(f"{spec}: images of {width} x {width} cannot be halved; give an even resolution to resize them")
    check_array_size((len(ids), channels, side, side), first.itemsize, spec)
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
        heldout = hash_uniform(ids, _HOLDOUT) < share
        train = ~heldout
    chosen = ids[heldout if split == "heldout" else train]
    if len(chosen) == 0:
        raise DataError(f"{source.name}: the {split} part of {source.count} images at holdout {share:g} is empty")
    return chosen


def _resized_sigma(sigma: np.ndarray | None, old: int, new: int, spec: str) -> np.ndarray | None:
    """Averaging r x r pixels of white noise divides its standard deviation by r; other ratios would colour it."""
    if sigma is None or old == new or not sigma.any():
        return sigma
    if old % new:
        raise DataError(
            f"{spec}: resizing noisy images from {old} to {new} would correlate the noise of neighbouring pixels; "
            f"choose a resolution that divides {old}"
        )
    return (sigma / np.float32(old // new)).astype(np.float32)
