"""Magnitudes of complex images are known by their Rayleigh background, and nothing else is taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invoke import ambient
from number_files import counts
from scipy.stats import rayleigh

from ambient_theory.shared.errors import DataError
from ambient_train.data.estimation import rician
from ambient_train.data.estimation.report import noise_of
from ambient_train.data.estimation.rician import rician_of
from ambient_train.data.load import load_images

SIGMA = 0.1


def discs(n: int, side: int, height: float, seed: int) -> np.ndarray:
    """A bright disc in the middle of each image [n, 1, side, side], on a background of 0."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    at = rng.uniform(0.42 * side, 0.58 * side, (2, n, 1, 1))
    radius, bright = rng.uniform(0.2 * side, 0.32 * side, (n, 1, 1)), rng.uniform(0.8, 1.2, (n, 1, 1))
    return (((y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2) * bright * height)[:, None]


def magnitudes(image: np.ndarray, seed: int, sigma: float = SIGMA) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hypot(image + sigma * rng.standard_normal(image.shape), sigma * rng.standard_normal(image.shape))


def test_the_numbers_of_rayleighs_law_are_those_of_scipy() -> None:
    mean, variance, skewness, excess = (float(v) for v in rayleigh.stats(moments="mvsk"))
    assert (pytest.approx(variance**0.5), pytest.approx(variance**0.5 / mean)) == (rician.DEVIATION, rician.RATIO)
    assert (pytest.approx(skewness), pytest.approx(excess, abs=1e-3)) == (rician.SKEWNESS, rician._KURTOSIS - 3)
    assert pytest.approx(rayleigh.median()) == rician._MEDIAN


@pytest.mark.parametrize(("n", "side"), [(48, 32), (4, 64), (1, 256)])
@pytest.mark.parametrize("snr", [2, 5, 10, 30])
def test_sigma_and_snr_of_magnitudes_are_found(n: int, side: int, snr: float) -> None:
    """sigma within four of its standard errors and 2 % for edges of the object; the median SNR is that of patches, of
    which those at the edges are fainter."""
    for seed in range(4):
        x = discs(n, side, snr * SIGMA, seed)
        found = rician_of(magnitudes(x, seed + 100))
        assert found is not None
        assert found.sigma == pytest.approx(SIGMA, abs=4 * found.stderr + 0.02 * SIGMA)
        assert found.stderr < 0.03 * SIGMA
        inside = float(np.median(x[x > 0])) / SIGMA
        assert 0.6 * inside < found.snr < 1.2 * inside
        assert found.usable == (found.snr >= 3)


def test_standard_errors_are_those_of_many_draws() -> None:
    """Noise alone, 200 draws: a standard deviation of 200 has a relative error of 1/sqrt(400), four of those."""
    found = [rician_of(magnitudes(np.zeros((12, 1, 36, 36)), seed)) for seed in range(200)]
    known = [f for f in found if f is not None]
    assert len(known) > 190
    scores = [(f.sigma - SIGMA) / f.stderr for f in known]
    assert np.std(scores) == pytest.approx(1, abs=4 / np.sqrt(2 * len(known)))
    assert all(f.snr == 0 for f in known)


def test_what_a_scanner_leaves_out_does_not_hide_the_background() -> None:
    y = magnitudes(discs(48, 48, 0.5, 0), 1)
    y[:, :, :12] = 0
    found = rician_of(y)
    assert found is not None
    assert found.sigma == pytest.approx(SIGMA, rel=0.05)


def test_camera_counts_are_no_magnitudes() -> None:
    """Whole numbers and electrons, dim and bright, with and without an offset."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for dark, read, offset in ((1, 0.5, 0), (3.6, 0, 0), (4, 1.5, 0), (20, 2, 0), (20, 3, 100)):
            photons = dark * (1 + 9 * (discs(48, 32, 1, seed) > 0))
            counted = rng.poisson(photons) + read * rng.standard_normal(photons.shape) + offset
            for gain in (1, 0.37):
                assert rician_of(np.maximum(gain * counted, 0)) is None
                assert rician_of(np.rint(np.maximum(gain * counted, 0))) is None
        assert rician_of(counts(60, 32, seed)[:, None].astype(float)) is None


def test_white_noise_that_is_clipped_at_zero_is_none() -> None:
    """1.9 sigma above 0 its mean and deviation are those of Rayleigh's law; its shape is not."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for above in (0, 1, 1.5, 1.7, 1.9, 2.1, 2.5, 4):
            for height in (0, 2, 10):
                y = above + discs(48, 32, height, seed) + rng.standard_normal((48, 1, 32, 32))
                assert rician_of(np.maximum(y, 0)) is None
    assert rician_of(y) is None  # below 0


def test_clean_images_with_a_dark_background_and_speckle_are_none() -> None:
    assert rician_of(discs(48, 32, 1, 0)) is None
    smooth = np.exp(-((np.mgrid[:32, :32] - 16) ** 2).sum(0) / 60) * np.linspace(0.5, 1, 48)[:, None, None, None]
    assert rician_of(smooth) is None
    assert rician_of(load_images("digits", split="all").pixels().astype(float) + 1) is None
    assert rician_of(load_images("photos32", split="all").pixels().astype(float)[:, :1] + 1) is None
    bright = 0.05 + discs(48, 32, 1, 0)
    speckle = bright * np.random.default_rng(0).rayleigh(1, bright.shape)  # its noise grows with brightness
    assert rician_of(speckle) is None
    assert rician_of(np.concatenate([magnitudes(bright, 0)] * 2, 1)) is None  # two channels: real and imaginary part


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_magnitudes_are_said_to_be_rician_with_their_sigma_and_without_a_gain(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "mag.npy"
    np.save(path, (scale * magnitudes(discs(48, 32, 1, 0), 0)[:, 0]).astype(np.float32))
    spec = f"{path}:range=0..{2 * scale:g}"
    report = noise_of(spec, table=tmp_path / "mag.sigma.npy")
    (found,) = report.sets
    assert found.level.low < scale * SIGMA < found.level.high
    assert found.rician is not None
    assert found.rician.sigma == found.level.value
    assert found.gain is None
    (note,) = [n for n in report.notes if "Rician" in n]
    assert f"with sigma = {found.level.value:.4g}" in note
    assert "nearly Gaussian" in note
    assert not any("gain" in n for n in report.notes)
    assert np.load(tmp_path / "mag.sigma.npy") == pytest.approx(np.full(48, found.level.value), rel=1e-4)
    assert report.to_dict()["sets"][0]["rician"]["snr"] > 3
    said = ambient("data", "noise", spec)
    assert "Rician" in said.stdout


def test_a_table_of_magnitudes_below_an_snr_of_3_is_refused_and_not_written(tmp_path: Path) -> None:
    np.save(tmp_path / "mag.npy", magnitudes(discs(48, 32, 0.15, 0), 0)[:, 0].astype(np.float32))
    spec = f"{tmp_path / 'mag.npy'}:range=0..1"
    (note,) = [n for n in noise_of(spec).notes if "Rician" in n]
    assert "do not train on such images" in note
    assert "complex images, or their real and imaginary part" in note
    with pytest.raises(DataError, match=r"no table is written: all images: the noise is Rician"):
        noise_of(spec, table=tmp_path / "mag.sigma.npy")
    assert not (tmp_path / "mag.sigma.npy").exists()
