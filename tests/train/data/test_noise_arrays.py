"""Noise that files state pixel by pixel, or by its spectrum: read, resized, written down, and carried to training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.noise_arrays import StatedNoise, as_noise, resized
from ambient_train.data.images import ImageSet
from ambient_train.data.load import load_images
from ambient_train.data.mixture import corrupt
from ambient_train.data.noise_models import noise_of_images
from ambient_train.data.noise_models._gaussian import Mapped
from ambient_train.data.noise_models._numbers import smoothed
from ambient_train.data.prepare.corrupt import write_corrupted
from ambient_train.data.prepare.options import CorruptOptions
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.evaluation.proximal import corrupt_like
from ambient_train.runs.asked import request_of
from ambient_train.runs.resolve import make_training_set, resolve
from ambient_train.runs.score import Subject
from ambient_train.settings.layers import settings_from
from ambient_train.training.batches import batch_loss, prepare_batch
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState

RNG = np.random.default_rng(0)
TINY: dict[str, Any] = {
    "batch": 16,
    "precision": "fp32",
    "lr_ramp_nimg": 32,
    "preset": "digits",
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
}


def some_maps(n: int = 6, channels: int = 1, side: int = 8) -> np.ndarray:
    """Deviations of every pixel, a third of the images clean."""
    out = RNG.uniform(0.1, 0.9, (n, channels, side, side)).astype(np.float32)
    out[::3] = 0
    return out


def images_of(n: int = 6, channels: int = 1, side: int = 8) -> np.ndarray:
    return RNG.uniform(-1, 1, (n, channels, side, side)).astype(np.float32)


def check_read(path: str, maps: np.ndarray, unit: float = 1.0) -> None:
    found = load_images(path)
    level = np.sqrt((maps.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
    assert found.sigma_n is not None
    assert found.pattern is not None
    np.testing.assert_allclose(found.sigma_n, level / unit, rtol=1e-5)
    np.testing.assert_allclose(found.sigma_n[:, None, None, None] * found.pattern, maps / unit, rtol=1e-5, atol=1e-7)
    assert (found.pattern[level == 0] == 1).all()
    assert any("the noise of each pixel is stated" in note for note in found.notes)


@pytest.mark.parametrize("shape", ["[N, C, H, W]", "[N, H, W]", "[N, H, W, C]"])
def test_maps_in_an_npz_and_beside_an_npy(tmp_path: Path, shape: str) -> None:
    images, maps = images_of(), some_maps()
    stored = {"[N, C, H, W]": maps, "[N, H, W]": maps[:, 0], "[N, H, W, C]": maps.transpose(0, 2, 3, 1)}[shape]
    np.savez(tmp_path / "a.npz", images=images, sigma=stored)
    check_read(str(tmp_path / "a.npz"), maps)
    np.save(tmp_path / "b.npy", images)
    np.save(tmp_path / "b.sigma.npy", stored)
    check_read(str(tmp_path / "b.npy"), maps)


def test_maps_of_numbers_are_in_the_units_of_the_numbers(tmp_path: Path) -> None:
    counts, maps = RNG.uniform(0, 4000, (6, 8, 8)), 2000 * some_maps()
    np.savez(tmp_path / "a.npz", images=counts, sigma=maps)
    check_read(f"{tmp_path / 'a.npz'}:range=0..4000", maps, unit=2000)


def test_maps_in_hdf5_and_fits(tmp_path: Path) -> None:
    h5py, fits = pytest.importorskip("h5py"), pytest.importorskip("astropy.io.fits")
    images, maps = images_of(), some_maps(6) + 0.05
    with h5py.File(tmp_path / "a.h5", "w") as store:
        store["images"], store["noise_std"] = images[:, 0], maps[:, 0]
    check_read(f"{tmp_path / 'a.h5'}:range=-1..1", maps)
    for name, stored in (("ERR", maps), ("VAR", maps**2), ("IVAR", 1 / maps**2)):
        planes = fits.ImageHDU(images[:, 0], name="SCI"), fits.ImageHDU(stored[:, 0], name=name)
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / f"{name}.fits")
        check_read(f"{tmp_path / name}.fits:range=-1..1", maps)


def test_a_spectrum_in_an_npz_beside_an_npy_and_in_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    images, sigma, spectrum = images_of(), np.array([0, 0.2, 0.2, 0.4, 0, 0.2]), smoothed(0.6, (8, 8))[0]
    np.savez(tmp_path / "a.npz", images=images, sigma=sigma, spectrum=7 * spectrum)  # of any scale
    np.save(tmp_path / "b.npy", images)
    np.save(tmp_path / "b.sigma.npy", sigma)
    np.save(tmp_path / "b.spectrum.npy", spectrum)
    with h5py.File(tmp_path / "c.h5", "w") as store:
        store["images"], store["sigma"], store["spectrum"] = images[:, 0], sigma, spectrum
    for name in ("a.npz", "b.npy", "c.h5:range=-1..1"):
        found = load_images(str(tmp_path / name))
        assert found.spectrum is not None
        assert found.pattern is None
        assert found.sigma_n is not None
        np.testing.assert_allclose(found.spectrum[0], spectrum, rtol=1e-5)
        np.testing.assert_allclose(found.sigma_n, sigma, rtol=1e-6)
        assert any("the noise is correlated" in note for note in found.notes)


def test_what_states_no_noise_is_refused(tmp_path: Path) -> None:
    images, maps = images_of(), some_maps()
    holes = maps.copy()
    holes[1, 0, 3, 3] = 0
    endless = maps.copy()
    endless[1, 0, 3, 3] = np.nan
    spectrum, level = smoothed(0.6, (8, 8))[0], np.full(6, 0.2)
    for arrays, text in (
        ({"sigma": holes}, "a.npz:sigma: 1 pixels have no finite positive noise, one of image 1 has 0"),
        ({"sigma": endless}, "one of image 1 has nan"),
        ({"sigma": -maps}, "no finite positive noise"),
        ({"sigma": maps[:, :, :4]}, "give one an image, an array of 6 numbers, or one a pixel"),
        ({"sigma": maps, "spectrum": spectrum}, "either a map of its pixels or a spectrum"),
        ({"spectrum": spectrum}, "no image has a noise level"),
        ({"sigma": level, "spectrum": spectrum[:5]}, r"a spectrum of shape \(5, 5\)"),
        ({"sigma": level, "spectrum": np.stack([spectrum] * 2)}, "spectra of 2 channels for images of 1"),
    ):
        np.savez(tmp_path / "a.npz", images=images, **arrays)
        with pytest.raises(DataError, match=text):
            load_images(str(tmp_path / "a.npz"))


def test_flat_maps_and_a_flat_spectrum_are_levels(tmp_path: Path) -> None:
    images, sigma = images_of(), np.linspace(0, 0.5, 6, dtype=np.float32)
    np.savez(tmp_path / "levels.npz", images=images, sigma=sigma)
    np.savez(tmp_path / "maps.npz", images=images, sigma=sigma[:, None, None] * np.ones((1, 8, 8), np.float32))
    np.savez(tmp_path / "flat.npz", images=images, sigma=sigma, spectrum=np.ones((8, 5)))
    hashes = {load_images(str(tmp_path / f"{name}.npz")).content_hash for name in ("levels", "maps", "flat")}
    assert len(hashes) == 1
    np.savez(tmp_path / "other.npz", images=images, sigma=sigma, spectrum=smoothed(0.6, (8, 8)))
    assert load_images(str(tmp_path / "other.npz")).content_hash not in hashes


@pytest.mark.parametrize("kind", ["map", "spectrum", "white"])
def test_noise_after_averaging_is_that_of_the_averaged_noise(kind: str) -> None:
    """A S A^T with A the block average, against the covariance that the resized statement means."""
    side, r = 8, 2
    sigma = np.array([0.3], np.float32)
    if kind == "map":
        stated = as_noise(some_maps(2)[1:], (1, 1, side, side), "map")
    else:
        stated = StatedNoise(sigma, None, smoothed(0.7, (side, side)) if kind == "spectrum" else None)
    before, after = (_covariance(noise, n) for noise, n in ((stated, side), (resized(stated, side, 4, "x"), 4)))
    average = np.zeros((16, 64))
    for row in range(4):
        for column in range(4):
            block = np.zeros((side, side))
            block[r * row : r * row + r, r * column : r * column + r] = 1 / r**2
            average[4 * row + column] = block.reshape(-1)
    np.testing.assert_allclose(after, average @ before @ average.T, rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="choose a resolution that divides 8"):
        resized(stated, 8, 6, "x")


@pytest.mark.parametrize("kind", ["map", "spectrum"])
def test_a_part_without_noise_is_read_at_every_size(tmp_path: Path, kind: str) -> None:
    images, maps, heldout = images_of(12), some_maps(12), np.arange(12) < 4
    maps[heldout] = 0
    levels = np.sqrt((maps.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
    stated = {"sigma": maps} if kind == "map" else {"sigma": levels, "spectrum": smoothed(0.6, (8, 8))}
    np.savez(tmp_path / "a.npz", images=images, heldout=heldout, **stated)
    clean = load_images(str(tmp_path / "a.npz"), split="heldout", resolution=4)
    kept = clean.pattern if kind == "map" else clean.spectrum
    assert kept is not None
    assert kept.shape[-2] == 4
    assert clean.already_noisy == 0
    assert (clean.pattern is None) or (clean.pattern == 1).all()
    odd = load_images(str(tmp_path / "a.npz"), split="heldout", resolution=6)  # which noise would not come through
    assert (odd.pattern, odd.spectrum, odd.already_noisy) == (None, None, 0)
    with pytest.raises(DataError, match="choose a resolution that divides 8"):
        load_images(str(tmp_path / "a.npz"), split="train", resolution=6)


def test_levels_that_become_alike_at_another_size_are_told(tmp_path: Path) -> None:
    few = np.array([0.4, 0.4, 0.4, 0.6], np.float32) + np.float32(2**-25) * np.array([0, 1, 2, 0], np.float32)
    assert len(np.unique(few)) == 4 > len(np.unique(few / np.float32(3)))  # the control: two levels become one
    many = np.random.default_rng(0).uniform(0.1, 0.3, 5000).astype(np.float32)
    for name, sigma, told in (("few", few, "0.4 -> 0.133, 0.6 -> 0.2 at 2"), ("many", many, "0.1 -> 0.0333, ..., ")):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((len(sigma), 6, 6), np.float32), sigma=sigma)
        (note,) = (n for n in load_images(str(tmp_path / f"{name}.npz"), resolution=2).notes if "averaging" in n)
        assert told in note


def _covariance(noise: StatedNoise, side: int) -> np.ndarray:
    images = ImageSet(
        "x",
        np.zeros((1, 1, side, side), np.float32),
        None,
        np.zeros(1, np.int64),
        noise.sigma,
        pattern=noise.pattern,
        spectrum=noise.spectrum,
    )
    eye = torch.eye(side**2, dtype=torch.float64).reshape(-1, 1, side, side)
    assert noise.sigma is not None
    model = noise_of_images(images).at(torch.zeros(side**2, dtype=torch.int64))
    root = model.corrupt(torch.zeros_like(eye), torch.full((side**2,), float(noise.sigma[0])).double(), eye)
    flat = root.reshape(side**2, -1).numpy()
    return np.asarray(flat.T @ flat)


@pytest.mark.parametrize("noise", ["map", "correlated:0.6"])
def test_noise_that_is_written_down_is_that_of_training(tmp_path: Path, noise: str) -> None:
    if noise == "map":
        np.save(tmp_path / "map.npy", some_maps(2)[1, 0])
        noise = f"variance-map:{tmp_path / 'map.npy'}"
    dest = tmp_path / "noisy.npz"
    write_corrupted("digits", dest, CorruptOptions(sigma_n=0.25, share=0.9, seed=3, noise=noise))
    common = {**TINY, "corruption": 0.9, "seed": 3, "draw": "sigma-first"}  # noisy images from the start
    fresh_job = resolve(settings_from({**common, "data": "digits", "sigma": 0.25, "noise": noise}))
    job = resolve(settings_from({**common, "data": str(dest)}))
    fresh, written = (make_training_set(r.config, r.source) for r in (fresh_job, job))
    every = torch.arange(len(fresh))
    assert not written.added.any()
    assert int(fresh.added.sum()) == 1298
    assert torch.equal(written.batch(every), fresh.batch(every))
    torch.testing.assert_close(written.levels, fresh.levels, rtol=1e-6, atol=0)
    losses = [[end.loss for end in train(_state(j), j.training_set(), 48)] for j in (fresh_job, job)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    white = resolve(settings_from({**common, "data": "digits", "sigma": 0.25}))
    assert white.config.hash != fresh_job.config.hash
    assert [end.loss for end in train(_state(white), white.training_set(), 48)] != pytest.approx(losses[0], rel=1e-2)
    for j in (fresh_job, job):
        described = j.describe_data()
        kind = described["noise"]
        assert kind.startswith(noise.partition(":")[0])
        assert str(tmp_path) not in kind
        assert described["lowest_level"] == pytest.approx(float(fresh.levels.max()), rel=1e-5)
        assert Subject.of_job(j).method["noise"] == kind
    assert job.config.noise_hash == ""
    assert len(fresh_job.config.noise_hash) == 16
    assert fresh_job.describe_data()["noise"] == (
        noise if "0.6" in noise else f"variance-map {_content(fresh_job)[:6]}"
    )
    assert "noise" not in Subject.of_job(white).method
    assert "noise" not in white.describe_data()


def _content(job: Any) -> str:
    return str(job.config.noise_hash)


def test_a_noise_file_counts_by_its_content(tmp_path: Path) -> None:
    base = {**TINY, "data": "digits", "sigma": 0.25, "corruption": 0.9}
    maps = some_maps(2)[1, 0]
    hashes = []
    for name, array in (("a", maps), ("b", 2 * maps), ("c", maps.T)):
        np.save(tmp_path / f"{name}.npy", array)
        job = resolve(settings_from({**base, "noise": f"variance-map:{tmp_path / name}.npy"}))
        hashes.append(job.config.hash)
    assert hashes[0] == hashes[1]  # a map is relative to sigma
    assert hashes[0] != hashes[2]
    np.save(tmp_path / "c.npy", maps)
    with pytest.raises(DataError, match="the file has changed"):
        job.training_set()
    plain = resolve(settings_from(base)).config
    assert resolve(settings_from({**base, "noise": "white"})).config.hash == plain.hash


def _state(job: Any) -> TrainState:
    return TrainState(job.config, job.shape, job.label_dim, torch.device("cpu"))


def test_images_are_used_above_their_own_largest_eigenvalue_and_not_their_mean_level(tmp_path: Path) -> None:
    """Two images of one mean level: the one with the uneven map is used later."""
    maps = np.full((2, 1, 8, 8), 0.2, np.float32)
    maps[1, 0, 0, 0] = 0.8
    np.savez(tmp_path / "a.npz", images=images_of(2), sigma=maps)
    source = load_images(str(tmp_path / "a.npz"))
    mixture = corrupt(source, n_clean=0, n_noisy=2, sigma_n=0.0, seed=0)
    np.testing.assert_allclose(mixture.levels.numpy(), [0.2, 0.8], rtol=1e-6)
    assert mixture.source.ids.tolist() == [0, 1]
    table = LevelTable.of(mixture.levels)
    assert table.admissible(torch.tensor([0.5], dtype=torch.float64), 1.05).tolist() == [1]


def test_maps_move_with_their_images_under_augmentation(tmp_path: Path) -> None:
    """Where the map is large the image differs from the clean one: so it does after flips, turns and shifts."""
    clean = np.zeros((40, 1, 8, 8), np.float32)
    maps = np.full((40, 1, 8, 8), 1e-4, np.float32)
    for k, (row, column) in enumerate(RNG.integers(0, 8, (40, 2))):
        maps[k, 0, row, column] = 0.5
    noisy = (clean + maps * RNG.normal(size=maps.shape)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=noisy, sigma=maps)
    job = resolve(
        settings_from({**TINY, "data": str(tmp_path / "a.npz"), "corruption": 1.0, "holdout": 0.0, "augment": 1.0})
    )
    data = job.training_set()
    table = LevelTable.of(data.levels)
    batch = prepare_batch(job.config, data, table, torch.arange(64), 0, torch.device("cpu"))
    deviation = (batch.noise.corrupt(torch.zeros_like(batch.y), batch.sigma_n, torch.ones_like(batch.y)))[:, 0]
    where = deviation.flatten(1).argmax(1)
    before = data.noise.at(batch.index)
    unmoved = before.corrupt(torch.zeros_like(batch.y), batch.sigma_n, torch.ones_like(batch.y)).flatten(1).argmax(1)
    assert (where != unmoved).float().mean() > 0.5  # the control: most were moved
    assert torch.equal(batch.y.abs().flatten(1).argmax(1), where)
    state = TrainState(job.config, job.shape, 0, torch.device("cpu"))
    loss, _ = batch_loss(job.config, state.network, batch, table, state.errors)
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("how", [{"augment": 1.0}, {"xflip": True}])
def test_one_map_for_all_moves_with_each_image(tmp_path: Path, how: dict[str, Any]) -> None:
    """Clean images are 0, so a noisy one is loud exactly where its moved map is."""
    shared = np.full((8, 8), 1e-4, np.float32)
    shared[1, 2] = 1.0
    np.save(tmp_path / "map.npy", shared)
    clean = ImageSet("x", np.zeros((40, 1, 8, 8), np.float32), None, np.arange(40, dtype=np.int64))
    data = corrupt(clean, n_clean=0, n_noisy=40, sigma_n=0.3, seed=0, noise=f"variance-map:{tmp_path / 'map.npy'}")
    assert len(data.noise.describe()["pattern"]) == 1  # still one for all
    config = settings_from({**TINY, "data": "digits", "sigma": 0.3, "corruption": 1.0, **how}).train
    batch = prepare_batch(config, data, LevelTable.of(data.levels), torch.arange(64), 0, torch.device("cpu"))
    deviation = batch.noise.corrupt(torch.zeros_like(batch.y), batch.sigma_n, torch.ones_like(batch.y))
    where = deviation.flatten(1).argmax(1)
    assert len(where.unique()) > 1  # the control: not all were moved alike
    assert torch.equal(batch.y.abs().flatten(1).argmax(1), where)


def test_what_would_take_the_noise_for_another_is_refused(tmp_path: Path) -> None:
    uneven = smoothed(0.7, (8, 8))[0].copy()
    uneven[1:4, 1:4] *= 3  # one diagonal: not its own mirror image
    np.save(tmp_path / "uneven.npy", uneven)
    tall = np.repeat(np.exp(-(np.fft.fftfreq(8)[:, None] ** 2) * 30), 5, axis=1)
    np.save(tmp_path / "tall.npy", tall)
    base = {**TINY, "data": "digits", "sigma": 0.25, "corruption": 0.9}
    for more, text in (
        ({"noise": f"correlated:{tmp_path / 'uneven.npy'}", "xflip": True}, "--xflip would change the noise"),
        ({"noise": f"correlated:{tmp_path / 'tall.npy'}", "augment": 0.1}, "not the same along both axes"),
        ({"noise": "correlated:0.6", "weight": "optimal"}, "the noise here is not white"),
        ({"noise": "pink"}, "noise 'pink' is not one of"),
    ):
        with pytest.raises(UsageError, match=text):
            resolve(settings_from({**base, **more})).training_set()
    with pytest.raises(UsageError, match="there is none; leave it out"):
        resolve(settings_from({**TINY, "data": "digits", "noise": "correlated:0.6"}))
    for fine in (
        {"noise": "correlated:0.6", "xflip": True, "augment": 0.1},
        {"noise": f"correlated:{tmp_path / 'tall.npy'}", "xflip": True},
    ):
        resolve(settings_from({**base, **fine})).training_set()
    write_corrupted("digits", tmp_path / "c.npz", CorruptOptions(sigma_n=0.25, share=0.5, noise="correlated:0.6"))
    with pytest.raises(UsageError, match="one set has one kind of noise"):
        resolve(settings_from({**base, "data": str(tmp_path / "c.npz"), "noise": "correlated:0.7"})).training_set()
    resolve(settings_from({**base, "data": str(tmp_path / "c.npz")})).training_set()  # of the same kind


def test_a_changed_noise_file_is_another_request(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", some_maps(2)[1, 0])
    settings = settings_from({**TINY, "sigma": 0.2, "corruption": 0.5, "noise": f"variance-map:{tmp_path}/map.npy"})
    before = request_of(settings)
    assert request_of(settings) == before
    np.save(tmp_path / "map.npy", np.ones((8, 9)))
    assert request_of(settings).name == before.name
    assert request_of(settings).fingerprint != before.fingerprint


def test_generated_images_are_noised_by_the_map_that_goes_with_the_level() -> None:
    """Strengths out of order, each with a map of its own: zero where the other has its noise."""
    relative = torch.full((2, 1, 8, 8), 1e-12)
    relative[0, :, :4], relative[1, :, 4:] = 2.0, 2.0
    found = corrupt_like(np.zeros((400, 1, 8, 8), np.float32), [0.8, 0.1], seed=0, noise=Mapped(relative))
    upper, lower = found[:, 0, :4].std(axis=(1, 2)), found[:, 0, 4:].std(axis=(1, 2))
    assert (np.minimum(upper, lower) < 1e-5).all()
    assert upper[upper > 1e-3].mean() == pytest.approx(0.8 * 2**0.5, rel=0.05)
    assert lower[lower > 1e-3].mean() == pytest.approx(0.1 * 2**0.5, rel=0.05)


def test_a_map_from_almost_nothing_to_much_is_told_without_a_word_on_the_terminal(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    maps = np.full((6, 1, 8, 8), 0.5, np.float32)
    maps[0, 0, 0, 0] = 1e-44
    np.savez(tmp_path / "a.npz", images=images_of(), sigma=maps)
    assert any("the noise of each pixel" in note for note in load_images(str(tmp_path / "a.npz")).notes)
    assert [str(w.message) for w in recwarn] == []
