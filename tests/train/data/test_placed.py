"""A set on a device gives the batches that it gives by itself, bit for bit, whatever is kept of it where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ambient_train.data import placed as placing
from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.placed import Placed, sent, what_fits
from ambient_train.diffusion.augment import apply_maps, draw_maps

CPU = torch.device("cpu")


def mixture(noise: str, dtype: type = np.uint8) -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8)).astype(np.uint8)
    images = pixels if dtype is np.uint8 else (pixels / 127.5 - 1).astype(dtype)
    source = ImageSet("test", images, np.arange(50, dtype=np.int64) % 3, np.arange(50, dtype=np.int64))
    return corrupt(source, n_clean=10, n_noisy=30, sigma_n=0.3, seed=1, noise=noise)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("noise", ["", "correlated:1.5"])
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("kept_bytes", [0, 2**20])
def test_batches_are_those_of_the_set_the_first_time_and_again(
    noise: str, resident: bool, kept_bytes: int, dtype: type
) -> None:
    data = mixture(noise, dtype)
    placed = Placed(data, CPU, resident=resident, kept_bytes=kept_bytes)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        index = torch.randint(len(data), (16,), generator=generator)
        y = placed.batch(index, index)
        assert torch.equal(y, data.batch(index))
        y.zero_()  # a batch is the caller's own
        assert torch.equal(placed.labels(index), data.labels(index))
        assert torch.equal(placed.told[index], data.told[index].double())
        if noise:
            assert torch.equal(placed.noise(index, index).relative, data.noise.at(index).relative)


def of_maps() -> TrainingSet:
    """Images that came with a map of their noise each, some clean, to which noise is added, too."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.5, 1.5, (50, 1, 8, 8)).astype(np.float32)
    maps /= np.sqrt((maps**2).mean(axis=(1, 2, 3), keepdims=True))
    sigma = np.where(np.arange(50) < 30, 0.0, 0.2).astype(np.float32)
    maps[:30] = 1
    pixels = rng.uniform(-1, 1, (50, 1, 8, 8)).astype(np.float32)
    source = ImageSet("test", pixels, None, np.arange(50, dtype=np.int64), sigma, pattern=maps)
    return corrupt(source, n_clean=10, n_noisy=35, sigma_n=0.3, seed=1)


def test_images_and_the_maps_of_their_noise_share_a_quarter_of_the_memory() -> None:
    gb = 2**30
    for images, maps, expected in (
        (10, 10, (True, True)),
        (10, 11, (True, False)),  # together more than 20 of 80
        (21, 20, (False, True)),  # maps alone, where the images do not fit
        (21, 21, (False, False)),
        (20, 0, (True, True)),  # white noise, and one map for all, have room
    ):
        assert what_fits(images * gb, maps * gb, 80 * gb) == expected


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_maps_without_room_are_sent_batch_by_batch(
    resident: bool, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, bytes_sent = of_maps(), list[int]()
    monkeypatch.setattr(placing, "moved", lambda tensor, device: bytes_sent.append(tensor.nbytes) or tensor.clone())
    placed = Placed(data, CPU, resident=resident, mapped=mapped, kept_bytes=0)
    index = torch.randint(len(data), (16,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(placed.noise(index, index).relative, data.noise.at(index).relative)
    assert sum(bytes_sent) == (0 if mapped else 16 * 8 * 8 * 4)
    assert torch.equal(placed.batch(index, index), data.batch(index))
    held = 0 if placed._noise is None else placed._noise.nbytes
    assert held == (data.noise.nbytes if mapped else 0)
    assert data.noise.nbytes == len(data) * 8 * 8 * 4


def test_a_noisy_image_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixture("")
    made: list[int] = []
    original = TrainingSet.batch
    monkeypatch.setattr(TrainingSet, "batch", lambda self, index: made.extend(index.tolist()) or original(self, index))
    place = data.on(CPU)
    assert data.on(CPU) is place
    for _ in range(3):
        place.batch(torch.arange(40), torch.arange(40))
    assert made == torch.nonzero(data.added)[:, 0].tolist()


def test_vectors_travel_as_one_and_keep_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, real = torch.tensor([1, -(2**62)]), torch.tensor([0.1, -1e300], dtype=torch.float64)
    parcels: list[torch.Tensor] = []
    monkeypatch.setattr(placing, "moved", lambda tensor, device: parcels.append(tensor) or tensor.clone())
    there = sent(torch.device("cuda"), whole, real)
    assert len(parcels) == 1
    assert torch.equal(there[0], whole)
    assert torch.equal(there[1], real)
    assert sent(CPU, whole, real)[0] is whole  # nowhere to go


def test_interpolating_all_images_gives_each_what_it_needs() -> None:
    """As interpolating only those that need it does: exactly where nothing is to do, else to rounding."""
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = draw_maps(0, torch.arange(64), torch.arange(64) % 2 == 0, 0.3, 16)
    assert 5 < int(maps.warped.sum()) < 60
    few, every = apply_maps(images, maps, few=True), apply_maps(images, maps, few=False)
    assert torch.equal(few[~maps.warped], every[~maps.warped])
    torch.testing.assert_close(few, every, rtol=0, atol=1e-5)
