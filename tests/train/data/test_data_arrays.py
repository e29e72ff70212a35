"""Arrays as people keep them: read under the names that they have, or named; never silently clean, never refused for
what nobody needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import png, rgb, write_folder
from number_files import hdf5

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.arrays import as_texts
from ambient_train.data.images import ImageSet
from ambient_train.data.load import load_images
from ambient_train.data.prepare.check import check
from ambient_train.data.readers import open_source

N = 6
GREY = rgb(N, channels=1)[:, 0]


def load(tmp_path: Path, split: Any = "all", **arrays: Any) -> ImageSet:
    np.savez(tmp_path / "a.npz", **arrays)
    return load_images(str(tmp_path / "a.npz"), split=split)


@pytest.mark.parametrize("kind", ["complex", "signed", "bright"])
def test_faint_floats_are_in_other_units_and_refused_with_the_range_to_give(tmp_path: Path, kind: str) -> None:
    """Of size 1e-5, as scanners give them, they are all mid grey."""
    rng = np.random.default_rng(0)
    z = 1e-5 * (rng.standard_normal((N, 16, 16)) + 1j * rng.standard_normal((N, 16, 16)))
    images = {"complex": z.astype(np.complex64), "signed": z.real, "bright": np.abs(z)}[kind]
    with pytest.raises(DataError, match=r"not in units of \[-1, 1\]: say which values become -1 and 1") as caught:
        load(tmp_path, images=images)
    (problem,) = check(str(tmp_path / "a.npz")).problems
    assert "say which values become -1 and 1" in problem["problem"]
    asked = str(caught.value).split("as in ")[1].split(" ")[0]
    assert load_images(asked).images.std() > 0.3
    assert load_images(f"{tmp_path / 'a.npz'}:range=-1..1").images.std() < 1e-4  # as they are, where that is asked
    assert load(tmp_path, images=images * (0.1 / np.abs(images).max()) - 0.05).images.max() <= 0.1  # the control
    assert not load(tmp_path, images=np.zeros((N, 16, 16))).images.any()


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 1, 1, 1), (1,), ()])
def test_one_level_an_image_may_keep_axes_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    levels = np.full(shape, 0.25) if np.prod(shape) != N else np.arange(N).reshape(shape) / 8
    loaded = load(tmp_path, images=GREY, sigma=levels)
    assert loaded.sigma_n is not None
    assert loaded.sigma_n.tolist() == np.broadcast_to(levels.reshape(-1), N).tolist()


@pytest.mark.parametrize("shape", [(N, 8, 8), (N, 1, 8, 8)])
def test_a_flat_map_of_the_noise_of_each_pixel_is_a_level(tmp_path: Path, shape: tuple[int, ...]) -> None:
    loaded = load(tmp_path, images=GREY, sigma=np.full(shape, 0.125))
    assert loaded.pattern is None
    assert loaded.sigma_n is not None
    assert (loaded.sigma_n == 0.125).all()


def test_levels_of_another_shape_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="maps of the noise of each pixel are read in an"):
        load(tmp_path, images=GREY, sigma=np.full((N, 2), 0.1))


@pytest.mark.parametrize("name", ["sigmas", "sigma_n", "noise_std", "noise_level"])
def test_levels_under_another_name_are_read_aloud(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, images=GREY, **{name: np.full(N, 0.1)})
    assert loaded.noise_summary() == "6 of 6 images came with noise: 6 at 0.1"
    assert loaded.notes == (f"noise levels are read from the array {name}",)


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("variance", np.full(3, 0.01), "float64 [3]"),
        ("std", np.full(3, 0.5), "float64 [3]"),  # of the data, as often as of noise
        ("std", np.array(0.5), "float64 []"),
        ("weights", np.ones(N), "float64 [6]"),  # of the images, not of their pixels
        ("noise", np.full((N, 8, 8), 0.1), "float64 [6, 8, 8]"),  # the noise itself, as often as its level
        ("filenames", np.array([f"slice_{i}.nii" for i in range(N)]), "<U11 [6]"),
        ("meta", np.array({"scanner": "A"}, dtype=object), "object []"),
    ],
)
def test_arrays_that_are_not_read_are_named_and_hinder_nothing(
    tmp_path: Path, name: str, array: np.ndarray, what: str
) -> None:
    loaded = load(tmp_path, images=GREY, **{name: array})
    assert loaded.sigma_n is None
    np.testing.assert_array_equal(loaded.images[:, 0], GREY)
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith(f"not read: the array {name} ({what})")
    assert "`sigma`" in loaded.notes[0]


def test_nothing_is_said_where_everything_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, images=GREY, labels=np.arange(N), sigma=np.zeros(N)).notes == ()


@pytest.mark.parametrize(
    ("layout", "heldout"),
    [("medmnist", 5), ("keras", 3)],
)
def test_the_parts_of_medmnist_and_keras_files_are_parts(tmp_path: Path, layout: str, heldout: int) -> None:
    x = rgb(N + 5, channels=1)[:, 0]
    y = np.arange(N + 5) % 3
    cut = {"train": slice(0, N), "val": slice(N, N + 2), "test": slice(N + 5 - 3, N + 5)}
    if layout == "medmnist":
        arrays = {f"{p}_images": x[s] for p, s in cut.items()} | {f"{p}_labels": y[s, None] for p, s in cut.items()}
    else:
        del cut["val"]
        arrays = {f"x_{p}": x[s] for p, s in cut.items()} | {f"y_{p}": y[s].astype(float) for p, s in cut.items()}
    train, held = (load(tmp_path, split=split, **arrays) for split in ("train", "heldout"))
    np.testing.assert_array_equal(train.images[:, 0], x[:N])
    np.testing.assert_array_equal(held.images[:, 0], x[N + 5 - heldout :])
    assert train.labels is not None
    assert held.labels is not None
    assert (train.labels.tolist(), held.labels.tolist()) == (y[:N].tolist(), y[N + 5 - heldout :].tolist())
    assert train.notes == ()


def test_labels_of_several_classes_at_once_are_named_and_left(tmp_path: Path) -> None:
    arrays = {"train_images": GREY, "train_labels": np.ones((N, 14), np.uint8)}
    loaded = load(tmp_path, **arrays)
    assert loaded.labels is None
    assert "labels are not read: train_labels" in loaded.notes[0]
    with pytest.raises(DataError, match="train_sigma but no test_sigma"):
        load(tmp_path, **arrays, train_sigma=np.ones(N), test_images=GREY)


@pytest.mark.parametrize("labels", [["b", "a", "b", "c", "a", "a"], [b"b", b"a", b"b", b"c", b"a", b"a"]])
def test_labels_of_text_become_classes(tmp_path: Path, labels: list[Any]) -> None:
    loaded = load(tmp_path, images=GREY, labels=np.array(labels))
    assert loaded.labels is not None
    assert (loaded.labels.tolist(), loaded.classes) == ([1, 0, 1, 2, 0, 0], ("a", "b", "c"))


def test_bytes_that_are_no_text_are_refused_as_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=np.array(["\U0010fffe"] * N))
    beyond = (tmp_path / "a.npz").read_bytes().replace(b"\xfe\xff\x10\0", b"\xff\xff\xff\x7f")
    (tmp_path / "a.npz").write_bytes(beyond)  # no character, and no longer the checksum of the archive
    with pytest.raises(DataError, match=r"a\.npz"):
        load_images(str(tmp_path / "a.npz"))
    for code in (b"\xff\xff\xff\x7f", b"\x00\xd8\0\0"):  # beyond Unicode, and half of a pair
        for order in "<>":
            with pytest.raises(DataError, match="labels: not text"):
                as_texts(np.frombuffer((code if order == "<" else code[::-1]) * N, f"{order}U1"), "labels")
    assert as_texts(np.array(["a", "\u00e9"], ">U1"), "labels") == ["a", "\u00e9"]
    np.savez(tmp_path / "b.npz", images=GREY, labels=np.array([b"\xff"] * N))
    with pytest.raises(DataError, match="labels: not text"):
        load_images(str(tmp_path / "b.npz"))


def test_labels_that_are_dates_or_identifiers_are_numbered_and_the_map_is_kept(tmp_path: Path) -> None:
    loaded = load(tmp_path, images=GREY, labels=np.array([20240102, 20240101] * 3))
    assert loaded.labels is not None
    assert (loaded.labels.tolist(), loaded.label_dim) == ([1, 0] * 3, 2)
    assert loaded.classes == ("20240101", "20240102")
    assert "numbered 0 to 1" in loaded.notes[0]
    sparse = load(tmp_path, images=GREY, labels=np.array([0, 5, 999, 0, 5, 999]))  # a network of 1,000 classes is none
    assert (sparse.label_dim, sparse.notes) == (1000, ())
    with pytest.raises(DataError, match="labels must be >= 0"):
        load(tmp_path, images=GREY, labels=np.array([0, -1] * 3))


def test_labels_that_hardly_any_images_share_are_asked_about(tmp_path: Path) -> None:
    assert "are they classes" in load(tmp_path, images=rgb(30, channels=1), labels=np.arange(30)).notes[0]
    assert load(tmp_path, images=rgb(30, channels=1), labels=np.arange(30) % 10).notes == ()


def test_number_of_classes_counts_names_and_labels(tmp_path: Path) -> None:
    from dataclasses import replace

    digits = load_images("digits", max_images=3)
    assert digits.label_dim == 10  # a class without an image is still one
    assert replace(digits, classes=None, labels=np.array([0, 4, 2])).label_dim == 5
    assert replace(digits, labels=None).label_dim == 0


def test_floats_beyond_their_units_are_named_unless_they_came_with_noise(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(0, 1.5, (N, 8, 8))
    assert "floats reach from" in load(tmp_path, images=noisy).notes[0]
    assert load(tmp_path, images=noisy, sigma=np.full(N, 1.5)).notes == ()
    assert load(tmp_path, images=np.clip(noisy / 6, -1, 1)).notes == ()


@pytest.mark.parametrize("levels", ["stated", "half", "none"])
@pytest.mark.parametrize("low", [-1e4, 0])
def test_floats_in_other_units_are_refused_with_the_range_to_give(tmp_path: Path, levels: str, low: float) -> None:
    rng = np.random.default_rng(0)
    sigma = np.where(np.arange(60) % 2, 2000.0, 2000.0 * (levels == "stated"))
    values = rng.uniform(low, 1e4, (60, 8, 8)) + sigma[:, None, None] * rng.standard_normal((60, 8, 8))
    stated = {} if levels == "none" else {"sigma": sigma}
    with pytest.raises(DataError, match=r"not in units of \[-1, 1\]: say which values become -1 and 1") as caught:
        load(tmp_path, images=values, **stated)
    assert ("up to 2000" in str(caught.value)) == (levels != "none")
    ends = str(caught.value).partition(":range=")[2].split()[0]
    assert "e+" not in ends  # as people write numbers
    mapped = load_images(f"{tmp_path / 'a.npz'}:range={ends}")  # as the sentence says
    assert mapped.values is not None
    assert "noise levels are in the units of the files" in mapped.notes[0]
    np.testing.assert_allclose(mapped.values.to_values(mapped.images)[:, 0], values, atol=1e-2)
    if levels != "none":
        assert mapped.sigma_n is not None
        np.testing.assert_allclose(mapped.sigma_n, sigma / mapped.values.unit, rtol=1e-6)
    plain = load_images(f"{tmp_path / 'a.npz'}:range=-1..1")  # control: whoever says that they are pixels is believed
    np.testing.assert_allclose(plain.images[:, 0], values, rtol=1e-6)


def test_levels_that_no_pixels_hold_are_in_grey_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (60, 8, 8)) + 0.2 * rng.standard_normal((60, 8, 8))
    for images in (pixels, np.clip(pixels, -1, 1)):
        with pytest.raises(DataError, match=r"hold no such noise: .* divided by 127\.5 \(25\.5 is 0\.2\)"):
            load(tmp_path, images=images, sigma=np.full(60, 25.5))
    assert load(tmp_path, images=pixels, sigma=np.full(60, 0.2)).notes == ()


VARIANCES = np.array([0, 0.04, 0.04, 0.01, 0.09, 0.01])


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("std", np.sqrt(VARIANCES)),
        ("sd", np.sqrt(VARIANCES)),
        ("noise", np.sqrt(VARIANCES)),
        ("var", VARIANCES),
        ("Noise Variance", VARIANCES),
        ("ivar", 1 / np.maximum(VARIANCES, 1e-30)),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "parts", "h5", "npy", "csv"])
def test_levels_are_read_under_one_table_of_names_in_every_kind_of_file(
    tmp_path: Path, kind: str, name: str, levels: np.ndarray
) -> None:
    pixels = np.tile(np.linspace(-1, 1, 64).reshape(8, 8), (N, 1, 1)).astype(np.float32)
    path, key = tmp_path / f"a.{kind}", name.replace(" ", "_").lower()
    if kind == "npz":
        np.savez(path, images=pixels, **{name: levels})
    elif kind == "parts":
        path = tmp_path / "a.npz"
        half = {"train": slice(0, 3), "test": slice(3, N)}
        arrays = {f"{part}_images": pixels[rows] for part, rows in half.items()}
        np.savez(path, **arrays, **{f"{part}_{key}": levels[rows] for part, rows in half.items()})
    elif kind == "h5":
        hdf5(path, pixels, **{name: levels})
    elif kind == "npy":
        np.save(path, pixels)
        np.save(tmp_path / f"a.{key}.npy", levels)
    else:
        rows = [f"{k}.png,{level!r}" for k, level in enumerate(levels.tolist())]
        files = {f"{k}.png": png(image[None]) for k, image in enumerate(GREY)}
        path = write_folder(tmp_path / "csv", {**files, "dataset.csv": "\n".join([f"file,{name}", *rows]).encode()})
    source = open_source(f"{path}:range=-1..1" if kind == "h5" else str(path))
    assert source.sigma_n is not None
    np.testing.assert_allclose(source.sigma_n, np.sqrt(VARIANCES), rtol=1e-6, atol=1e-12)
    said = " ".join(source.notes)
    assert ("variance" in said) == (name not in ("std", "sd", "noise"))
    assert "read from" in said or kind == "csv"


@pytest.mark.parametrize("name", ["var", "weights", "err"])
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_maps_of_variances_and_weights_are_those_of_deviations(tmp_path: Path, kind: str, name: str) -> None:
    deviation = np.random.default_rng(0).uniform(0.1, 0.4, (N, 8, 8))
    stated = {"var": deviation**2, "weights": deviation**-2, "err": deviation}[name]
    pixels, path = deviation.astype(np.float32) - 0.5, tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, images=pixels, **{name: stated})
    else:
        hdf5(path, pixels, **{name: stated})
    source = open_source(f"{path}:range=-1..1")
    assert source.sigma_n is not None
    assert source.pattern is not None
    found = source.sigma_n[:, None, None] * source.pattern[:, 0]
    np.testing.assert_allclose(found, deviation, rtol=1e-5)
    stated[0, 0, 0] = 0 if name == "weights" else -1
    np.savez(tmp_path / "a.npz", images=pixels, **{name: stated})
    with pytest.raises(DataError, match="a missing pixel has no noise level"):
        open_source(str(tmp_path / "a.npz"))


def test_levels_beside_a_file_count_before_those_inside_it_and_a_note_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "a.sigma.npy", np.full(N, 0.25))
    loaded = load(tmp_path, images=GREY, sigma=np.full(N, 0.1))
    assert loaded.noise_summary() == "6 of 6 images came with noise: 6 at 0.25"
    assert loaded.notes == ("noise levels are read from a.sigma.npy beside the file and not from inside it",)


@pytest.mark.parametrize("scale", [1.0, 3.2])
def test_floats_that_no_noise_level_explains_are_remarked(tmp_path: Path, scale: float) -> None:
    generator = np.random.default_rng(0)
    sigma = np.where(np.arange(60) % 2, 0.5, 0.0).astype(np.float32)
    clean = generator.uniform(-1, 1, (60, 8, 8)).astype(np.float32)
    noisy = clean + sigma[:, None, None] * generator.standard_normal(clean.shape).astype(np.float32)
    np.savez(tmp_path / "own.npz", images=scale * noisy, sigma=scale * sigma)
    notes = " ".join(load_images(str(tmp_path / "own.npz"), split="all", holdout=0.0).notes)
    if scale == 1.0:
        assert "floats reach" not in notes
    else:
        assert "more than noise up to 1.6 explains" in notes
        assert ":range=LOW..HIGH" in notes


@pytest.mark.parametrize("label", [2**63, 2**60, 1e30])
def test_labels_that_no_whole_number_holds_are_refused(tmp_path: Path, label: float) -> None:
    labels = np.array([label] * N, np.uint64 if isinstance(label, int) else np.float64)
    with pytest.raises(DataError, match=r"a\.npz.*labels must be at most"):
        load(tmp_path, images=GREY, labels=labels)


def test_a_note_on_names_of_any_length_is_a_sentence(tmp_path: Path) -> None:
    files = {f"{k}.png": png(image) for k, image in enumerate(rgb(2))}
    table = "file,label\n0.png,a\n1.png,b\n" + "x" * 100_000 + ",c\n"
    source = open_source(str(write_folder(tmp_path / "d", {**files, "dataset.csv": table.encode()})))
    assert any("name no image" in note for note in source.notes)
    assert max(map(len, source.notes)) < 5000
