"""The picture of a set of images: written once, the same each time, with what could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import png, rgb, write_folder
from invoke import ambient
from number_files import counts, tiff
from PIL import Image

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.picture import show_source


def test_the_picture_is_a_png_of_the_same_bytes_and_counts_what_is_in_the_set(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", counts(40))
    np.save(tmp_path / "a.sigma.npy", np.where(np.arange(40) % 4, 60.0, 0.0))
    shown = show_source(str(path), tmp_path / "one.png")
    assert (shown.images, shown.clean, shown.noisy, shown.heldout) == (40, 10, 30, None)
    assert "become -1 to 1" in shown.notes[0]
    show_source(str(path), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 800
    np.save(tmp_path / "a.sigma.npy", np.full(40, 60.0))
    show_source(str(path), tmp_path / "two.png", overwrite=True)
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()  # control: other levels


def test_files_that_cannot_be_read_are_named_and_sizes_may_differ(tmp_path: Path) -> None:
    files = {f"{i}.png": png(rgb(1, side, seed=i)[0]) for i, side in enumerate((8, 16, 8, 24))}
    files["bad.png"] = files["0.png"][:40]
    files["scan.fits"] = b"x"
    root = write_folder(tmp_path / "d", files)
    result = ambient("data", "show", root, "--out", tmp_path / "d.png", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["unreadable"]) == 1
    assert "bad.png" in found["unreadable"][0]
    assert any("1 file is not read: 1 .fits" in note for note in found["notes"])


def test_images_that_were_turned_are_counted(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "d").mkdir()
    for i in range(3):
        image = Image.fromarray(rgb(1, seed=i)[0].transpose(1, 2, 0))
        image.save(tmp_path / "d" / f"{i}.png", **({"exif": turned} if i else {}))
    shown = show_source(str(tmp_path / "d"), tmp_path / "d.png")
    assert shown.notes == ("2 of the images looked at: an image stored on its side or mirrored (EXIF), now upright",)


def test_kinds_of_noise_without_levels_are_shown_with_the_question(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": png(rgb(1, seed=i)[0]) for i in range(3) for kind in ("clean", "noisy")}
    shown = show_source(str(write_folder(tmp_path / "d", files)), tmp_path / "d.png")
    assert any("kinds of noise" in note for note in shown.notes)


def test_a_picture_is_not_written_over_another_nor_of_nothing(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", {"a.png": png(rgb(1)[0])[:50]})
    with pytest.raises(DataError, match="can be read"):
        show_source(str(root), tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"\.png"):
        show_source("digits", tmp_path / "x.jpg")
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UsageError, match="--overwrite"):
        show_source("digits", tmp_path / "x.png")
    with pytest.raises(DataError, match="no such directory"):
        show_source("digits", tmp_path / "no" / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b""


def test_complex_values_are_shown(tmp_path: Path) -> None:
    normal = np.random.default_rng(0).normal(0, 0.3, (2, 20, 8, 8))
    np.savez(tmp_path / "in.npz", images=(normal[0] + 1j * normal[1]).astype(np.complex64), sigma=np.full(20, 0.2))
    assert show_source(str(tmp_path / "in.npz"), tmp_path / "a.png").noisy == 20
