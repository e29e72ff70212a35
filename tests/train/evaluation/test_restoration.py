"""Scores of restored images against closed forms: PSNR of white noise, the Wiener filter of a Gaussian, coverage."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest

from ambient_train.data.load import load_images
from ambient_train.data.noise_models._numbers import smoothed
from ambient_train.evaluation.restoration import (
    BINS,
    HALF_GREY,
    NL_MEANS,
    WIENER,
    Tally,
    Wiener,
    nl_means,
    psnr,
    ssim,
)

SIDE = 8


def coloured(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Stationary Gaussian images [n, 1, SIDE, SIDE] and their power spectrum [SIDE, SIDE]."""
    f = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    power = 0.5 / (1 + f[:, None] ** 2 + f[None, :] ** 2) ** 2
    white = np.fft.fft2(rng.normal(size=(n, 1, SIDE, SIDE)))
    return np.fft.ifft2(np.sqrt(power) * white).real.astype(np.float32), power


def noisy(x: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (x + sigma[:, None, None, None] * rng.normal(size=x.shape)).astype(np.float32)


def test_psnr_of_white_noise_is_twenty_log_of_two_over_sigma() -> None:
    """The mean squared error of d pixels is sigma^2 (1 +- sqrt(2/d)), in decibels 10/ln(10) of that; five errors."""
    rng = np.random.default_rng(0)
    x = np.zeros((4, 3, 32, 32), np.float32)
    y = noisy(x, np.full(4, 0.2), rng)
    assert np.abs(psnr(y, x) - 20 * math.log10(2 / 0.2)).max() < 5 * 10 / math.log(10) * math.sqrt(2 / 3072)
    assert np.isposinf(psnr(x, x)).all()


def test_wiener_filter_reaches_the_error_of_the_best_linear_estimate_from_noisy_images_alone() -> None:
    """E |x_hat - x|^2 per pixel is the mean of S sigma^2/(S + sigma^2); its spread over images is measured."""
    rng = np.random.default_rng(1)
    x, power = coloured(4000, rng)
    sigma = np.where(np.arange(4000) % 2, 0.3, 0.6)
    y = noisy(x, sigma, rng)
    found = Wiener.of(y, sigma)(y, sigma)
    for level in (0.3, 0.6):
        error = ((found - x)[sigma == level] ** 2).mean(axis=(1, 2, 3))
        best = (power * level**2 / (power + level**2)).mean()
        assert abs(error.mean() - best) < 5 * error.std() / math.sqrt(len(error)) + 0.01 * best
        unfiltered = ((y - x)[sigma == level] ** 2).mean()
        assert unfiltered > 1.5 * best  # negative control


@pytest.mark.parametrize("side", [(8, 8), (8, 7)])
def test_wiener_filter_knows_the_spectrum_of_correlated_noise(side: tuple[int, int]) -> None:
    """E |x_hat - x|^2 per pixel is the mean of S N/(S + N) over all frequencies, N = sigma^2 lambda."""
    rng, n = np.random.default_rng(3), 4000
    f2 = np.fft.fftfreq(side[0])[:, None] ** 2 + np.fft.fftfreq(side[1]) ** 2
    power = 0.5 / (1 + 60 * f2) ** 2
    half = smoothed(0.8, side)
    whole = np.abs(np.fft.fft2(np.fft.irfft2(half, s=side))).astype(np.float64)  # of real, even noise: the same
    sigma = np.where(np.arange(n) % 2, 0.3, 0.6)

    def stationary(spectrum: np.ndarray) -> np.ndarray:
        z = np.fft.fft2(rng.normal(size=(n, 1, *side)))
        return np.fft.ifft2(np.sqrt(spectrum) * z).real

    x = stationary(power).astype(np.float32)
    y = (x + sigma[:, None, None, None] * stationary(whole)).astype(np.float32)
    found, as_white = Wiener.of(y, sigma, half)(y, sigma), Wiener.of(y, sigma)(y, sigma)
    for level in (0.3, 0.6):
        error = ((found - x)[sigma == level] ** 2).mean(axis=(1, 2, 3))
        best = (power * level**2 * whole / (power + level**2 * whole)).mean()
        assert abs(error.mean() - best) < 5 * error.std() / math.sqrt(len(error)) + 0.01 * best
        assert ((as_white - x)[sigma == level] ** 2).mean() > 1.1 * best  # negative control


def test_filters_that_would_not_know_the_noise_are_left_out_by_name() -> None:
    restored, x = posterior_of_pixels(np.random.default_rng(4), 6, 1.0)
    sigma, y = np.full(6, 0.2), restored.pop("noisy")
    spectrum = smoothed(0.7, (y.shape[-2], y.shape[-1]))
    for wiener, names in ((None, [WIENER, NL_MEANS]), (Wiener.of(y, sigma, spectrum), [NL_MEANS])):
        tally = Tally(wiener, 0.9, eight_bits=True)
        tally.add(y, sigma, x, restored)
        found = tally.to_dict()
        assert found["left_out"] == names
        assert not set(names) & set(found["psnr_db"])
        assert (WIENER in found["psnr_db"]) == (wiener is not None)


def test_wiener_filter_without_the_subtraction_of_the_noise_is_worse() -> None:
    rng = np.random.default_rng(2)
    x, _ = coloured(2000, rng)
    sigma = np.full(2000, 0.6)
    y = noisy(x, sigma, rng)
    right, wrong = Wiener.of(y, sigma), Wiener.of(y, np.zeros(2000))
    assert ((right(y, sigma) - x) ** 2).mean() < 0.9 * ((wrong(y, sigma) - x) ** 2).mean()


def posterior_of_pixels(rng: np.random.Generator, n: int, spread: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Independent pixels x ~ N(0, .3^2) with noise .3: exact posterior quantities, the width times `spread`."""
    x = (0.3 * rng.normal(size=(n, 1, SIDE, SIDE))).astype(np.float32)
    y = noisy(x, np.full(n, 0.3), rng)
    mean, std = y / 2, np.full_like(x, spread * 0.3 / math.sqrt(2))
    z = 1.6448536269514722
    restored = {"images": mean, "sample": mean + std * rng.normal(size=x.shape).astype(np.float32)}
    restored |= {"sample_mean": mean, "std": std, "q05": mean - z * std, "q95": mean + z * std, "noisy": y}
    return restored, x


@pytest.mark.parametrize(("spread", "holds"), [(1.0, True), (0.8, False), (1.25, False)])
def test_an_exact_posterior_covers_what_it_promises_at_every_restored_intensity(spread: float, holds: bool) -> None:
    """Coverage of N independent pixels: standard error sqrt(.09/N), five of them. Wrong widths are seen."""
    restored, x = posterior_of_pixels(np.random.default_rng(3), 2000, spread)
    sigma, y = np.full(2000, 0.3), restored.pop("noisy")
    tally = Tally(Wiener.of(y, sigma), 0.9, eight_bits=False)
    for part in (slice(0, 700), slice(700, 2000)):
        tally.add(y[part], sigma[part], x[part], {k: v[part] for k, v in restored.items()})
    found = tally.to_dict()
    error = math.sqrt(0.09 / x.size)
    assert (abs(found["coverage"]["exact"]["value"] - 0.9) < 5 * error) == holds
    rows = found["coverage"]["by_restored_intensity"]
    assert sum(row["pixels"] for row in rows) == x.size
    for row in rows:
        if row["pixels"] > 1000:
            assert (abs(row["exact"] - 0.9) < 5 * math.sqrt(0.09 / row["pixels"])) == holds
    assert (abs(found["spread"] - 1) < 0.02) == holds
    best = 10 * math.log10(4 / (0.3**2 / 2))
    assert found["psnr_db"]["posterior mean"]["value"] == pytest.approx(best, abs=0.1)
    if holds:  # a sample has twice the error of the mean
        assert found["psnr_db"]["one sample"]["value"] == pytest.approx(best - 10 * math.log10(2), abs=0.1)


def test_blocks_add_up_to_the_whole() -> None:
    restored, x = posterior_of_pixels(np.random.default_rng(4), 30, 1.0)
    sigma, y = np.where(np.arange(30) % 3, 0.3, 0.2), restored.pop("noisy")
    whole, split = (Tally(Wiener.of(y, sigma), 0.9, eight_bits=True) for _ in range(2))
    whole.add(y, sigma, x, restored)
    for part in (slice(0, 7), slice(7, 8), slice(8, 30)):
        split.add(y[part], sigma[part], x[part], {k: v[part] for k, v in restored.items()})
    assert whole.to_dict() == split.to_dict()
    assert "left_out" not in whole.to_dict()
    assert [row["sigma_n"] for row in whole.to_dict()["psnr_db_by_level"]] == [0.2, 0.3]


def test_half_a_grey_level_is_allowed_for_originals_of_eight_bits() -> None:
    x = np.full((3, 1, 4, 4), 0.5, np.float32)
    point = {"images": x, "sample": x, "sample_mean": x, "std": np.zeros_like(x)}
    for off, within in ((0.9, 1.0), (1.1, 0.0)):
        shifted = x + np.float32(off * HALF_GREY)
        tally = Tally(Wiener.of(x, np.full(3, 0.1)), 0.9, eight_bits=True)
        tally.add(x, np.full(3, 0.1), x, {**point, "q05": shifted, "q95": shifted})
        found = tally.to_dict()["coverage"]
        assert found["exact"]["value"] == 0
        assert found["within half a grey level"]["value"] == within
        assert found["by_restored_intensity"][int(1.5 / 2 * BINS)]["within half a grey level"] == within


def test_without_samples_there_is_no_coverage_and_exact_images_have_no_finite_psnr() -> None:
    x = np.zeros((2, 1, 4, 4), np.float32)
    tally = Tally(Wiener.of(x, np.full(2, 0.1)), 0.0, eight_bits=True)
    tally.add(x + np.float32(0.1), np.full(2, 0.1), x, {"images": x})
    found = tally.to_dict()
    assert found["psnr_db"]["posterior mean"] == {"value": None, "stderr": None}
    assert "coverage" not in found
    assert "one sample" not in found["psnr_db"]


def test_library_scores_are_left_out_where_the_library_is_not_and_asked_for_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.zeros((2, 1, 4, 4), np.float32)
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    assert ssim(x, x) is None
    assert nl_means(x, np.array([0.1, 0.2])) is None
    asked: list[dict[str, object]] = []
    metrics, restoration = types.ModuleType("skimage.metrics"), types.ModuleType("skimage.restoration")
    metrics.structural_similarity = lambda a, b, **k: asked.append(k) or 0.5  # type: ignore[attr-defined]
    restoration.denoise_nl_means = lambda image, **k: asked.append({**k, "ndim": image.ndim}) or image + k["sigma"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skimage.metrics", metrics)
    monkeypatch.setitem(sys.modules, "skimage.restoration", restoration)
    assert ssim(x, x).tolist() == [0.5, 0.5]  # type: ignore[union-attr]
    assert asked[0] == {"win_size": 3, "data_range": 2.0, "channel_axis": 0}
    for channels, (ndim, axis) in ((1, (2, None)), (3, (3, 0))):
        found = nl_means(x.repeat(channels, axis=1), np.array([0.1, 0.2]))
        assert found is not None
        assert found[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2])
        assert (asked[-1]["ndim"], asked[-1]["channel_axis"]) == (ndim, axis)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_real_library_agrees_on_what_its_arguments_mean(channels: int) -> None:
    """SSIM of an image with itself is 1; non-local means takes noise off digits, which are not flat."""
    pytest.importorskip("skimage")
    digits = load_images("digits", split="heldout", max_images=20).pixels().repeat(channels, axis=1)
    sigma = np.full(20, 0.4)
    y = noisy(digits, sigma, np.random.default_rng(5))
    assert ssim(y, y).tolist() == pytest.approx(20 * [1])  # type: ignore[union-attr]
    smooth = nl_means(y, sigma)
    assert smooth is not None
    assert psnr(smooth, digits).mean() > psnr(y, digits).mean() + 1
