"""A training set on the device that trains on it: what a step needs of it, without asking the host.

On a GPU the images (in the bytes they are stored in), their levels, labels and ids lie in its memory where they take at
most a quarter of what is free, so do the maps of their noise where both fit into it (`what_fits`), and the noisy images
beside them with their fixed noise where that fits too; else the noise is made there again each time, by the keyed
generator. What does not fit stays on the host and is sent batch by batch through pinned memory. On a CPU nothing is
copied: there a noisy image is made at its first turn and kept, up to `KEPT_BYTES`, because its noise, which never
changes, takes ten times as long as all else of a batch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ambient_train.data.mixture import TrainingSet
    from ambient_train.data.noise_models._base import NoiseModel

KEPT_BYTES = 2**30
"""Most memory of a CPU for noisy images that were made before."""
_FREE_SHARE = 4
_CHUNK = 1024


def sent(device: torch.device, *vectors: Tensor) -> list[Tensor]:
    """int64 or float64 vectors of one length on a device: one copy for all of them, through pinned memory for a GPU.

    The host goes on while the copy is under way.
    """
    if device.type == "cpu":
        return list(vectors)
    packed = torch.stack([v.contiguous().view(torch.int64) for v in vectors])
    there = moved(packed, device)
    return [row.view(v.dtype) for row, v in zip(there, vectors, strict=True)]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, by a copy that nobody waits for."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def what_fits(images: int, maps: int, free: int) -> tuple[bool, bool]:
    """Whether images of so many bytes may lie where `free` bytes are, and whether the maps of their noise may, beside
    the images that do: a quarter of the memory in all."""
    room = free // _FREE_SHARE
    resident = images <= room
    return resident, maps + resident * images <= room


class Placed:
    """The set `data` on `device`. resident, mapped: whether images, and the maps of their noise, lie there; found out
    unless given. kept_bytes: most memory for noisy images that were made once.

    told: [N] float64, on the device.
    """

    def __init__(
        self,
        data: TrainingSet,
        device: torch.device,
        *,
        resident: bool | None = None,
        mapped: bool | None = None,
        kept_bytes: int | None = None,
    ):
        self._data, self._device = data, device
        self.told = data.told.to(device, torch.float64)
        labels = data.source.labels
        self._labels = None if labels is None else torch.tensor(labels, device=device)
        noisy, free = int(data.added.sum()), _free_bytes(device)
        image = int(np.prod(data.shape))
        own_memory = device.type != "cpu"
        fits = what_fits(data.source.images.nbytes, data.noise.nbytes, free) if own_memory else (False, True)
        resident, mapped = (
            found if given is None else given for found, given in zip(fits, (resident, mapped), strict=True)
        )
        self._noise = data.noise.sent(lambda maps: maps.to(device)) if mapped else None
        if kept_bytes is None:
            kept_bytes = free // _FREE_SHARE if own_memory else min(KEPT_BYTES, free // 8)
        self._kept: Tensor | None = None
        if noisy and 4 * noisy * image <= kept_bytes:
            home = device if resident else torch.device("cpu")
            self._slot = (data.added.cumsum(0) - 1).clamp_min(0).to(home)
            self._kept = torch.empty(noisy, *data.shape, device=home)
        self._images: Tensor | None = None
        if resident:
            self._images = _copied(data.source.images, device)
            self._ids, self._added = torch.tensor(data.source.ids, device=device), data.added.to(device)
            self._strength = data.sigma_n.to(device)
            if self._kept is not None:
                self._make_all()
        elif self._kept is not None:
            self._made = torch.zeros(len(data), dtype=torch.bool)

    def batch(self, index: Tensor, there: Tensor) -> Tensor:
        """Images [B, C, H, W] float32 on the device, as `TrainingSet.batch` has them; index [B] on the host, `there`
        the same on the device."""
        if self._images is not None:
            return self._resident(index, there)
        y = self._data.batch(index) if self._kept is None else self._once_made(index, self._kept)
        return y if self._device.type == "cpu" else moved(y, self._device)

    def noise(self, index: Tensor, there: Tensor) -> NoiseModel:
        """The noise model of a batch, on the device; index and `there` as in `batch`."""
        if self._noise is not None:
            return self._noise.at(there)
        return self._data.noise.at(index).sent(lambda maps: moved(maps, self._device))

    def labels(self, there: Tensor) -> Tensor | None:
        """Class labels [B] int64 on the device, or None for unlabelled data."""
        return None if self._labels is None else self._labels[there]

    def _resident(self, index: Tensor, there: Tensor) -> Tensor:
        images = self._pixels(there)
        if self._kept is not None:
            made = self._kept[self._slot[there]]
        elif bool(self._data.added.any()):  # of the host: nobody waits
            made = self._corrupted(images, index, there)
        else:
            return images
        return torch.where(self._added[there][:, None, None, None], made, images)

    def _pixels(self, there: Tensor) -> Tensor:
        """As `images.to_pixels`."""
        assert self._images is not None
        chosen = self._images[there]
        return chosen.to(torch.float32) / 127.5 - 1 if chosen.dtype == torch.uint8 else chosen.to(torch.float32)

    def _corrupted(self, images: Tensor, index: Tensor, there: Tensor) -> Tensor:
        noise = self.noise(index, there)
        z = noise.noise(self._data.seed, self._ids[there], self._data.shape)
        return noise.corrupt(images, self._strength[there], z)

    def _make_all(self) -> None:
        assert self._kept is not None
        for rows in torch.nonzero(self._data.added)[:, 0].split(_CHUNK):
            there = rows.to(self._device)
            self._kept[self._slot[there]] = self._corrupted(self._pixels(there), rows, there)

    def _once_made(self, index: Tensor, kept: Tensor) -> Tensor:
        added = self._data.added[index]
        rows, plain = torch.nonzero(added)[:, 0], torch.nonzero(~added)[:, 0]
        missing = index[rows][~self._made[index[rows]]]
        if len(missing):
            kept[self._slot[missing]] = self._data.batch(missing)
            self._made[missing] = True
        if not len(plain):
            return kept[self._slot[index]]
        y = torch.empty(len(index), *self._data.shape)
        y[plain] = torch.from_numpy(self._data.source.pixels(index[plain].numpy()))
        y[rows] = kept[self._slot[index[rows]]]
        return y


def _copied(images: np.ndarray, device: torch.device) -> Tensor:
    """Images on a device, in parts: they may be mapped from files larger than the host's memory."""
    first = torch.tensor(images[:1])
    out = torch.empty(images.shape, dtype=first.dtype, device=device)
    for start in range(0, len(images), _CHUNK):
        out[start : start + _CHUNK] = torch.tensor(images[start : start + _CHUNK])
    return out


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not say
        return 8 * KEPT_BYTES
