"""Noise that images came with: announced with its levels, and questioned where the pixels show another one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from data_files import rgb
from scipy.ndimage import gaussian_filter

from ambient_train.data.load import load_images
from ambient_train.data.noise import estimate_noise, halved, stated_notes
from ambient_train.data.prepare.check import check

N, SIDE = 60, 32


def scenes(seed: int = 8) -> np.ndarray:
    """Smooth images [N, SIDE, SIDE] within 0.7 of zero."""
    rng = np.random.default_rng(seed)
    x = np.stack([gaussian_filter(rng.standard_normal((SIDE, SIDE)), 6) for _ in range(N)])
    return 0.7 * x / np.abs(x).max()


def notes(tmp_path: Path, images: np.ndarray, sigma: float | np.ndarray | None) -> list[str]:
    stated = {} if sigma is None else {"sigma": np.broadcast_to(sigma, len(images))}
    np.savez(
        tmp_path / "a.npz", images=images.astype(images.dtype if images.dtype == np.uint8 else np.float32), **stated
    )
    return [note for note in check(str(tmp_path / "a.npz")).notes if "pixels show" in note or "count as clean" in note]


def test_levels_of_images_that_came_noisy_are_read_summarised_and_rescaled(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    level = np.repeat([0, 0.2], N)
    x = rng.uniform(-0.5, 0.5, (2 * N, 1, 1)) + level[:, None, None] * rng.standard_normal((2 * N, 8, 8))
    np.savez(tmp_path / "given.npz", images=x.astype(np.float32), sigma=level)
    given = load_images(str(tmp_path / "given.npz"))
    assert given.sigma_n is not None
    assert given.sigma_n.tolist() == level.astype(np.float32).tolist()
    assert (given.noise_summary(), given.notes) == ("60 of 120 images came with noise: 60 at 0.2", ())
    half = load_images(str(tmp_path / "given.npz"), resolution=4)
    assert half.noise_summary() == "60 of 120 images came with noise: 60 at 0.1"
    assert half.notes == ("averaging pixels lowers the noise: levels 0.2 -> 0.1 at 4 pixels",)
    assert load_images("digits").noise_summary() == ""


def test_many_levels_are_summarised_by_their_range(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=rgb(20, channels=1), sigma=np.arange(20) / 100)
    loaded = load_images(str(tmp_path / "a.npz"))
    assert loaded.noise_summary() == "19 of 20 images came with noise: 19 levels from 0.01 to 0.19, median 0.1"
    assert (
        "levels 0.01 -> 0.005, ..., 0.19 -> 0.095 at 4 pixels"
        in load_images(str(tmp_path / "a.npz"), resolution=4).notes[0]
    )


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_a_true_level_is_not_questioned(tmp_path: Path, sigma: float, eight_bits: bool) -> None:
    y = scenes() + sigma * np.random.default_rng(1).standard_normal((N, SIDE, SIDE))
    if eight_bits:
        y = np.rint(np.clip(y * 127.5 + 127.5, 0, 255)).astype(np.uint8)
    assert notes(tmp_path, y, sigma) == []


def test_a_level_ten_times_too_small_is_named_beside_the_one_seen(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, scenes() + 0.3 * np.random.default_rng(1).standard_normal((N, SIDE, SIDE)), 0.03)
    assert re.search(r"0.03 stated, 0.(29|30)\d* seen", note)


def test_a_level_in_grey_values_is_named_with_its_unit(tmp_path: Path) -> None:
    y = scenes() + 0.2 * np.random.default_rng(1).standard_normal((N, SIDE, SIDE))
    y = np.rint(np.clip(y * 127.5 + 127.5, 0, 255)).astype(np.uint8)
    (note,) = notes(tmp_path, y, 25.5)
    assert re.search(r"25.5 stated, 0.(19|20)\d* seen", note)
    assert "25.5 grey levels of 255 are 0.2" in note
    assert "cannot be in units of [-1, 1]" in load_images(str(tmp_path / "a.npz")).notes[0]


def test_correlated_and_rician_noise_are_named_with_both_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    correlated = np.stack([gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1.2) for _ in range(N)])
    (note,) = notes(tmp_path, scenes() + 0.3 * correlated / correlated.std(), 0.3)
    assert note.startswith("the pixels show another noise than is stated: 0.3 stated, 0.0")
    real, imaginary = 0.3 * rng.standard_normal((2, N, SIDE, SIDE))
    (note,) = notes(tmp_path, 2 * np.abs((scenes() + 1) / 2 + real + 1j * imaginary) - 1, 0.6)
    assert "0.6 stated, 0.5" in note


@pytest.mark.parametrize(("noisy", "word"), [(N, "most"), (N * 2 // 3, "most"), (N // 3, "a quarter or more")])
def test_noisy_images_without_a_stated_level_are_named(tmp_path: Path, noisy: int, word: str) -> None:
    y = scenes()
    y[:noisy] += 0.2 * np.random.default_rng(1).standard_normal((noisy, SIDE, SIDE))
    (note,) = notes(tmp_path, y, None)
    found = re.search(
        rf"60 images count as clean \(noise 0\), but {word} of them show white noise of about (0\.\d+)", note
    )
    assert found is not None
    assert float(found[1]) == pytest.approx(0.2, rel=0.1)
    assert notes(tmp_path, scenes(), None) == []  # control


@pytest.mark.parametrize("spec", ["digits", "photos32", "photos32:stride=8"])
def test_texture_is_not_taken_for_noise(spec: str) -> None:
    assert not [note for note in check(spec).notes if "noise" in note]


def test_white_noise_keeps_its_deviation_from_one_scale_to_the_next() -> None:
    z = np.random.default_rng(2).standard_normal((200, 1, 32, 32))
    fine, coarse = estimate_noise(z), estimate_noise(halved(z))
    # the median of |N(0, 1)| over n values has standard deviation 1.17/sqrt(n) relative to itself
    assert abs(fine.mean() - 1) < 4 * 1.17 / np.sqrt(200 * 256)
    assert abs(coarse.mean() - 1) < 4 * 1.17 / np.sqrt(200 * 64) + 0.01  # the median of few values is biased by .7/n
    ramp = np.linspace(-1, 1, 32)[:, None] * np.linspace(-1, 1, 32) * np.ones((3, 1, 1, 1))
    np.testing.assert_allclose(estimate_noise(halved(ramp)), 8 * estimate_noise(ramp))  # control: a smooth image grows


def test_a_level_for_each_image_is_judged_in_groups() -> None:
    levels = np.linspace(0.1, 0.3, 400)
    assert stated_notes(levels, levels, levels, 256, eight_bits=False) == []
    (note,) = stated_notes(levels, 2 * levels, 2 * levels, 256, eight_bits=False)
    assert note.count("stated,") == 4
    assert "and 4 more" in note
