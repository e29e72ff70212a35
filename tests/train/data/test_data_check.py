"""What `check` reports: moments, levels, duplicates, the noise estimate, and the file that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from data_files import encode, png, rgb, write_folder
from invoke import ambient
from PIL import Image

from ambient_train.data.load import load_images
from ambient_train.data.noise import estimate_noise
from ambient_train.data.prepare import check as check_module
from ambient_train.data.prepare.check import check, snr_db


def test_snr_is_the_papers_decibel() -> None:
    assert snr_db(0.2) == pytest.approx(14.15, abs=0.005)
    assert snr_db(1.0) == pytest.approx(10 * np.log10(2))


@pytest.mark.parametrize("spec", ["digits", "photos32"])
def test_moments_and_labels_are_those_of_the_pixels(spec: str) -> None:
    report, images = check(spec), load_images(spec)
    pixels = images.pixels().astype(np.float64)
    np.testing.assert_allclose(report.mean, pixels.mean((0, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(report.std, pixels.std((0, 2, 3)), atol=1e-9)
    assert report.usable
    assert report.labels is not None
    assert list(report.labels.values()) == np.bincount(images.labels).tolist()


def test_huge_images_are_summed_in_parts_and_their_middle_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.2, (5, 3, 40, 40)).astype(np.float32)
    images[:, :, 12:28, 12:28] += rng.normal(0, 0.3, (5, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "big.npz", images=images, sigma=np.full(5, 0.2))
    whole = check(str(tmp_path / "big.npz"))
    monkeypatch.setattr(check_module, "_MOST_PIXELS", 1000)
    monkeypatch.setattr(check_module, "_NOISE_SIDE", 12)
    parts = check(str(tmp_path / "big.npz"))
    assert parts.mean == pytest.approx(whole.mean, rel=1e-9)
    assert parts.std == pytest.approx(whole.std, rel=1e-9)
    (level,) = parts.levels
    assert level["estimated_sigma"] == pytest.approx(np.hypot(0.2, 0.3), rel=0.2)  # the middle alone


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.6])
def test_noise_estimate_recovers_white_noise_on_smooth_images_and_scales(sigma: float) -> None:
    ramp = np.linspace(-1, 1, 32)[:, None] * np.ones(32)
    noise = np.random.default_rng(0).standard_normal((200, 3, 32, 32))
    estimates = estimate_noise(ramp + sigma * noise)
    # the median of |N(0, 1)| over n values has standard deviation 1.17/sqrt(n) relative to itself
    assert abs(estimates.mean() / sigma - 1) < 4 * 1.17 / np.sqrt(200 * 3 * 16 * 16)
    np.testing.assert_allclose(estimate_noise(7 * noise), 7 * estimate_noise(noise))
    assert (estimate_noise(ramp + 0 * noise) < 1e-12).all()


def test_levels_carry_their_counts_their_snr_and_an_estimate(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    levels = np.repeat(np.array([0, 0.2, 0.6], np.float32), 100)
    noisy = levels[:, None, None, None] * rng.standard_normal((300, 1, 16, 16))
    np.savez(tmp_path / "n.npz", images=noisy.astype(np.float32), sigma=levels)
    report = check(str(tmp_path / "n.npz"))
    assert [row["images"] for row in report.levels] == [100, 100, 100]
    assert report.levels[0]["snr_db"] is None
    assert report.levels[1]["snr_db"] == pytest.approx(snr_db(0.2), abs=1e-5)
    for row, level in zip(report.levels, (0, 0.2, 0.6), strict=True):
        assert row["estimated_sigma"] == pytest.approx(level, rel=0.05, abs=1e-6)


def test_levels_of_mapped_values_are_told_in_the_units_of_the_files_and_in_those_of_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    level = np.repeat([0.0, 400.0], 20)
    values = 2000 + rng.uniform(-500, 500, (40, 1, 1)) + level[:, None, None] * rng.standard_normal((40, 16, 16))
    np.savez(tmp_path / "a.npz", images=values.astype(np.float32), sigma=2 * level)
    source = f"{tmp_path / 'a.npz'}:range=1000..3000"
    report = check(source)
    assert (report.unit, report.factor, report.value_range) == ("the units of the files", 1000, [1000, 3000])
    row = report.levels[1]
    assert (row["sigma"], row["told"]) == (pytest.approx(0.8), pytest.approx(800))
    assert row["estimated_told"] == pytest.approx(400, rel=0.05)
    assert row["estimated_sigma"] == pytest.approx(0.4, rel=0.05)
    (note,) = [note for note in report.notes if "another noise" in note]
    assert re.search(r": 800 stated, (39|40)\d seen \(the units of the files\): other units", note)
    printed = ambient("data", "check", source, "-q").stdout
    assert "1000 to 3000 become -1 to 1" in printed
    assert "noise levels in the units of the files, and behind them in units of [-1, 1]" in printed
    assert "800 (0.8)" in printed
    plain = check("digits")  # control: pixels have one unit
    assert (plain.unit, plain.factor, plain.value_range) == ("units of [-1, 1]", 1.0, None)


def test_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    images = rgb(5)
    images[[3, 4]] = images[1]
    root = write_folder(tmp_path / "d", {f"{i}.png": png(x) for i, x in enumerate(images)})
    report = check(str(root))
    assert (report.duplicates, report.duplicate_examples) == (2, [["1.png", "3.png", "4.png"]])
    assert report.usable
    assert check(str(write_folder(tmp_path / "e", {f"{i}.png": png(x) for i, x in enumerate(rgb(5))}))).duplicates == 0


def test_every_bad_file_is_listed_with_what_is_wrong(tmp_path: Path) -> None:
    files = {f"{i}.png": png(x) for i, x in enumerate(rgb(8))}
    files["2.png"] = files["2.png"][:50]
    files["4.png"] = encode(Image.new("RGBA", (8, 8)))
    files["6.png"] = png(rgb(1, 10)[0])
    files["7.png"] = b"nothing"
    report = check(str(write_folder(tmp_path / "d", files)))
    assert not report.usable
    assert {p["file"] for p in report.problems} == {"2.png", "4.png", "6.png", "7.png"}
    wrong = {p["file"]: p["problem"] for p in report.problems}
    assert "alpha" in wrong["4.png"]
    assert wrong["6.png"].startswith("10 x 10 RGB")
    assert (report.readable, report.count) == (5, 8)


@pytest.mark.parametrize(("side", "usable"), [(8, True), (9, False)])
def test_a_side_that_cannot_be_halved_is_a_problem(tmp_path: Path, side: int, usable: bool) -> None:
    root = write_folder(tmp_path / "d", {f"{i}.png": png(x) for i, x in enumerate(rgb(3, side))})
    assert check(str(root)).usable == usable


def test_notes_warn_of_noise_stored_in_8_bits_overlap_and_unstated_noise(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", images=rgb(4), sigma=np.full(4, 0.2))
    assert any("8 bits" in note for note in check(str(tmp_path / "u.npz")).notes)
    assert any("overlap" in note for note in check("photos32:stride=16").notes)
    assert not any("overlap" in note for note in check("photos32").notes)
    np.savez(tmp_path / "f.npz", images=np.random.default_rng(0).standard_normal((4, 1, 8, 8)))
    assert any("no noise level" in note for note in check(str(tmp_path / "f.npz")).notes)


def test_a_source_that_cannot_be_opened_is_a_report_of_that_problem(tmp_path: Path) -> None:
    report = check(str(tmp_path / "nowhere"))
    assert (report.usable, report.count, len(report.problems)) == (False, 0, 1)
