"""Counts, whose noise grows with brightness: the generalised Anscombe transform, and data that go through it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.anscombe import Anscombe
from ambient_train.data.load import in_values, load_images
from ambient_train.data.noise_models import added_noise
from ambient_train.data.noise_models._numbers import add_counts
from ambient_train.data.place import Counts, absolute, place
from ambient_train.data.prepare.corrupt import write_corrupted
from ambient_train.data.prepare.options import CorruptOptions
from ambient_train.data.values import ValueMap

N = 200_000
LINES = [Anscombe(1.0), Anscombe(2.1, 30.0), Anscombe(0.01, 4e-4), Anscombe(3.0, -300.0)]


def counts(line: Anscombe, photons: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    read = np.sqrt(max(line.intercept, 0.0))
    return np.asarray(line.gain * rng.poisson(photons, N) + line.darkest + read * rng.normal(size=N))


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("photons", [4.0, 10.0, 59.0, 61.0, 1000.0])
def test_transformed_counts_have_one_level_and_the_stated_mean(line: Anscombe, photons: float) -> None:
    t = line.forward(counts(line, photons))
    clean = line.darkest + line.gain * photons
    assert t.std() == pytest.approx(1, abs=0.035)
    assert abs(t.mean() - float(line.mean(clean))) < 4.5 * t.std() / N**0.5
    if photons < 100:  # the control: T of the clean value is another, by the curvature of T
        assert abs(t.mean() - float(line.forward(clean))) > 8 * t.std() / N**0.5
    assert float(line.inverse(line.mean(clean))) == pytest.approx(clean, rel=1e-5, abs=1e-4 * line.gain)


def test_below_four_photons_the_level_falls_and_the_mean_stays_exact() -> None:
    line = LINES[0]
    for photons, level in ((0.5, 0.68), (1.0, 0.85), (2.0, 0.96)):
        t = line.forward(counts(line, photons))
        assert t.std() == pytest.approx(level, abs=0.01)
        assert abs(t.mean() - float(line.mean(photons))) < 4.5 * t.std() / N**0.5


def test_the_way_back_is_monotone_and_dark_below_the_darkest() -> None:
    for line in LINES:
        values = line.inverse(np.linspace(-3, 200, 4001))
        assert (np.diff(values) >= -1e-9 * line.gain).all()
        assert values[0] == pytest.approx(line.darkest)


def test_the_intercept_moves_only_where_nothing_is_seen() -> None:
    """b = read^2 - g offset: read noise and offset are not told apart, which costs less than .01 above 4 photons."""
    gain, read, offset = 2.0, 3.0, 20.0
    rng = np.random.default_rng(3)
    line = Anscombe(gain, read**2 - gain * offset)
    for photons in (8.0, 40.0):
        y = gain * rng.poisson(photons, N) + offset + read * rng.normal(size=N)
        t = line.forward(y)
        assert abs(t.mean() - float(line.mean(offset + gain * photons))) < 0.02
        assert t.std() == pytest.approx(1, abs=0.03)


def test_drawn_counts_are_poisson_and_a_function_of_seed_and_image() -> None:
    x = np.linspace(-1, 1, 5, dtype=np.float32).reshape(1, 1, 1, 5).repeat(40_000, 0)
    ids = np.arange(40_000)
    y = add_counts(x, ids, 3, 0.1, 0.0)
    photons = np.rint(y[:, 0, 0].astype(float) / 0.1)
    np.testing.assert_allclose(0.1 * photons, y[:, 0, 0], atol=1e-6)
    assert (photons[:, 0] == 0).all()
    for k in range(1, 5):
        mean = float(x[0, 0, 0, k] + 1) / 0.1
        edges = stats.poisson.ppf([0.1, 0.3, 0.5, 0.7, 0.9], mean)
        found = np.array([(photons[:, k] <= e).mean() for e in edges])
        expected = stats.poisson.cdf(edges, mean)
        assert (np.abs(found - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 40_000)).all()
    assert np.array_equal(add_counts(x[7:9], ids[7:9], 3, 0.1, 0.0), y[7:9])
    assert not np.array_equal(add_counts(x[7:9], ids[7:9], 4, 0.1, 0.0), y[7:9])
    noisy = add_counts(x, ids, 3, 0.1, 0.2)
    assert float((noisy - y).std()) == pytest.approx(0.2, rel=0.01)


@pytest.mark.parametrize("kind", ["npz", "npy", "tif"])
def test_counts_of_a_file_get_one_level_and_clean_ones_their_mean(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    clean = np.repeat(rng.uniform(40, 4000, (300, 1, 1)), 64, 1).reshape(300, 8, 8)
    noisy = np.rint(2.0 * rng.poisson(clean / 2.0) + 100 + 5 * rng.normal(size=clean.shape)).astype(np.uint16)
    noisy[::3] = np.rint(clean[::3] + 100)
    sigma = np.ones(300, np.float32)
    sigma[::3] = 0
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, images=noisy, sigma=sigma)
    else:
        np.save(tmp_path / "a.sigma.npy", sigma)
        if kind == "npy":
            np.save(path, noisy)
        else:
            pytest.importorskip("tifffile").imwrite(path, noisy)
    line = f"{path}:range=0..4500:gain=2.0,{25 - 200}"
    found = load_images(line)
    assert found.values is not None
    assert found.sigma_n is not None
    level = 1 / found.values.unit
    np.testing.assert_allclose(found.sigma_n, np.where(sigma > 0, level, 0), rtol=1e-6)
    same = np.repeat(clean[:, :1, :1] + 100, 8, 1).repeat(8, 2)
    exact = found.values.to_pixels(same[:, None], clean=True)
    error = (found.pixels() - exact)[sigma > 0]
    n = error.size
    assert abs(error.mean()) < 4.5 * level / n**0.5
    assert error.std() == pytest.approx(level, rel=0.02)
    assert abs((found.pixels() - exact)[sigma == 0]).max() < 0.6 * level  # rounding to whole counts
    back = found.values.to_values(found.pixels()[sigma == 0])
    np.testing.assert_allclose(back[:, 0], noisy[::3], atol=0.01, rtol=1e-5)
    assert any("generalised Anscombe transform" in note for note in found.notes)
    everything = load_images(f"{tmp_path / 'b.npy'}:range=0..4500:gain=2.0", holdout=0.0) if _saved(tmp_path) else None
    assert everything is not None
    assert everything.already_noisy == len(everything)  # counts without stated levels are all noisy
    assert in_values(str(path), found.values) == f"{path}:range=0.0..4500.0:gain=2.0,-175.0"


def _saved(folder: Path) -> bool:
    np.save(folder / "b.npy", np.random.default_rng(2).poisson(100, (20, 8, 8)).astype(np.uint16))
    return True


def test_counts_written_down_are_read_as_white_noise_of_one_level(tmp_path: Path) -> None:
    dest = tmp_path / "counts.npz"
    write_corrupted("digits", dest, CorruptOptions(sigma_n=0.25, share=0.9, seed=3, noise="poisson-gaussian:0.1"))
    found, clean = load_images(str(dest)), load_images("digits", split="train")
    assert found.values is not None
    assert found.sigma_n is not None
    assert found.pattern is None
    assert found.spectrum is None
    level = 1 / found.values.unit
    noisy = found.sigma_n > 0
    assert noisy.sum() == 1298
    exact = found.values.to_pixels(clean.pixels() + 1, clean=True)
    np.testing.assert_allclose(found.pixels()[~noisy], exact[~noisy], atol=1e-5)
    bright = clean.pixels()[noisy] > -0.4  # more than ten photons
    error = (found.pixels() - exact)[noisy][bright]
    assert error.std() == pytest.approx(level, rel=0.03)
    assert abs(error.mean()) < 4.5 * level / bright.sum() ** 0.5
    raw = np.load(dest)["images"]
    at_grey = np.abs(clean.pixels()) < 0.1
    added = (raw[~np.load(dest)["heldout"]] - clean.pixels() - 1)[noisy][at_grey[noisy]]
    assert added.std() == pytest.approx(0.25, rel=0.06)


def test_counts_that_a_restoration_wrote_are_clean_when_they_are_read_again(tmp_path: Path) -> None:
    made = ValueMap(0.0, 400.0, "uint16", "tiff", Counts(2.0))
    brightness = np.random.default_rng(0).uniform(10, 400, (12, 1, 8, 8))
    np.savez(tmp_path / "restored.npz", images=brightness, values=made.to_bytes(in_units_of_the_data=True))
    found = load_images(str(tmp_path / "restored.npz"))
    assert not found.already_noisy
    assert found.values is not None
    np.testing.assert_allclose(found.values.to_values(found.pixels()), brightness, rtol=1e-4)


def test_places_name_counts() -> None:
    found = place("a.tif:range=0..4095:gain=2.1,-180")
    assert (found.counts, str(found.path)) == (Counts(2.1, -180.0), "a.tif")
    assert place(str(found)) == found
    assert place("a.h5:/x:gain=3").counts == Counts(3.0)
    for bad in ("a.tif:gain=0", "a.tif:gain=x", "a.tif:gain=1,2,3", "a.tif:gain=-1", "a.tif:gain=", "a.tif:gain=1,"):
        with pytest.raises(UsageError, match="gain"):
            place(bad)
    assert absolute("nothing.tif:gain=2") is None


def test_a_map_of_counts_is_kept_with_the_run() -> None:
    made = ValueMap(0.0, 4000.0, "uint16", "tiff", Counts(2.0, 10.0))
    stored = json.loads(made.to_bytes().tobytes())
    assert ValueMap.from_dict(stored, "x") == made
    plain = ValueMap(0.0, 4000.0, "uint16", "tiff")
    assert "counts" not in plain.to_dict()
    values = np.array([50.0, 300.0, 3000.0])
    x = made.to_pixels(values, clean=True)
    np.testing.assert_allclose(made.to_values(x), values, rtol=1e-4)
    with pytest.raises(DataError, match="not a map"):
        ValueMap.from_dict({**stored, "counts": [0.0, 1.0, 2.0]}, "x")
    with pytest.raises(DataError, match="a gain must be above 0"):
        ValueMap(0.0, 1.0, "float32", "npz", Counts(-1.0))


def test_counts_of_another_gain_are_not_read_as_those_of_the_map(tmp_path: Path) -> None:
    path = tmp_path / "camera.npy"
    np.save(path, (8 * np.random.default_rng(0).poisson(100.0, (6, 8, 8))).astype(np.uint16))
    made = ValueMap(0.0, 2000.0, "uint16", "npy", Counts(2.0))
    assert in_values(f"{path}:gain=2", made) == in_values(str(path), made) == f"{path}:range=0.0..2000.0:gain=2.0"
    with pytest.raises(DataError, match=r"gain 8\.0, but .* counts of gain 2\.0"):
        in_values(f"{path}:gain=8", made)
    with pytest.raises(DataError, match=r"gain 2\.0,50\.0, but .* counts of gain 2\.0"):
        in_values(f"{path}:gain=2,50", made)
    with pytest.raises(DataError, match=r"gain 8\.0, but .* no counts"):
        in_values(f"{path}:gain=8", ValueMap(0.0, 2000.0, "uint16", "npy"))
    assert in_values(f"{path}:gain=8", None) == f"{path}:gain=8"
    own = ValueMap(0.0, 2000.0, "float32", "npz", Counts(8.0)).to_bytes(in_units_of_the_data=True)
    for name, sigma in (("noisy", 1), ("clean", 0)):  # a file that says itself that it holds counts
        np.savez(tmp_path / f"{name}.npz", images=np.load(path), sigma=np.full(6, sigma), values=own)
    with pytest.raises(DataError, match=r"gain 8\.0, but .* counts of gain 2\.0"):
        in_values(str(tmp_path / "noisy.npz"), made)
    assert place(in_values(str(tmp_path / "clean.npz"), made)).counts == Counts(2.0)


def test_counts_are_refused_where_they_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data corrupt --noise poisson-gaussian:READ"):
        added_noise("poisson-gaussian:0.1", (1, 8, 8))
    with pytest.raises(UsageError, match=r"from 0 to below --sigma 0\.2"):
        write_corrupted("digits", tmp_path / "a.npz", CorruptOptions(sigma_n=0.2, noise="poisson-gaussian:0.3"))
    np.savez(tmp_path / "b.npz", images=np.ones((9, 8, 8)) * 40, sigma=np.random.default_rng(0).random((9, 8, 8)) + 1)
    with pytest.raises(DataError, match="a gain says how noisy each pixel is"):
        load_images(f"{tmp_path / 'b.npz'}:range=0..100:gain=2")
