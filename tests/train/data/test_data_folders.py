"""What folders say: classes in natural order, held-out parts in any case of letters, and what of noise is no class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from data_files import encode, png, rgb, write_folder
from PIL import Image

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.classes import natural
from ambient_train.data.formats.folders import describe_folders
from ambient_train.data.load import load_images
from ambient_train.data.prepare.check import check
from ambient_train.data.prepare.prepare import PrepareConfig, prepare
from ambient_train.evaluation.own_references import references
from ambient_train.runs.resolve import resolve
from ambient_train.settings.layers import settings_from

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def tree(root: Path, names: list[str]) -> Path:
    return write_folder(root, {name: png(x) for name, x in zip(names, rgb(len(names)), strict=True)})


@pytest.mark.parametrize(
    "parts",
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("train", "val"),
        ("TRAIN", "Validation"),
        ("train", "TEST"),
        ("Train_Set", "Test_Set"),
        ("train2017", "val2017"),
        ("images_train", "images-test"),
        ("trainset", "testset"),
    ],
)
def test_folders_for_training_and_testing_are_parts_in_any_case_of_letters(
    tmp_path: Path, parts: tuple[str, str]
) -> None:
    names = [f"{part}/{c}/{i}.png" for part, n in zip(parts, (5, 2), strict=True) for c in CLASSES for i in range(n)]
    root = tree(tmp_path / "brain", names)
    train, held = (load_images(str(root), split=split) for split in ("train", "heldout"))
    assert (len(train), len(held), train.classes, train.label_dim) == (20, 8, CLASSES, 4)
    held_names = sorted(name for name in names if name.startswith(parts[1]))
    np.testing.assert_array_equal(held.labels, [CLASSES.index(name.split("/")[1]) for name in held_names])


def test_words_for_parts_beside_other_folders_are_classes_and_a_note_says_so(tmp_path: Path) -> None:
    loaded = load_images(str(tree(tmp_path / "t", [f"{c}/1.png" for c in ("train", "test", "extra")])))
    assert loaded.classes == ("extra", "test", "train")
    assert "test/, train/ are taken as classes like extra/" in loaded.notes[0]


def test_a_part_of_its_own_is_kept_when_a_table_gives_the_labels(tmp_path: Path) -> None:
    names = [f"{part}/{i}.png" for part in ("train", "test") for i in range(3)]
    root = tree(tmp_path / "t", names)
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{name},{name[-5]}\n" for name in names))
    held = load_images(str(root), split="heldout")
    assert held.labels is not None
    assert held.labels.tolist() == [0, 1, 2]


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    loaded = load_images(str(tree(tmp_path / "t", [f"{c}/1.png" for c in ("10", "9", "2", "b", "a10", "a2")])))
    assert loaded.classes == ("2", "9", "10", "a2", "a10", "b")
    assert natural(["x07", "x7", "x" + "9" * 5000, "x8"]) == ["x07", "x7", "x8", "x" + "9" * 5000]
    report = check(str(tmp_path / "t"))
    assert report.class_names == list(loaded.classes)
    assert list(report.labels or {}) == list(loaded.classes)


def pairs(root: Path, clean: str = "clean", noisy: str = "noisy", count: int = 100) -> Path:
    rng = np.random.default_rng(0)
    scenes = rng.uniform(-0.4, 0.4, (count, 1, 1)) + np.zeros((count, 16, 16))
    files = {}
    for kind, sigma in ((clean, 0), (noisy, 0.2)):
        for i, x in enumerate(scenes):
            y = np.clip((x + sigma * rng.standard_normal(x.shape)) * 127.5 + 127.5, 0, 255)
            files[f"{kind}/{i:03d}.png"] = png(np.rint(y).astype(np.uint8)[None])
    return write_folder(root, files)


@pytest.mark.parametrize(("clean", "noisy"), [("clean", "noisy"), ("GT", "Noisy"), ("original", "sigma25")])
def test_kinds_of_noise_are_no_classes_and_their_levels_are_asked_for(tmp_path: Path, clean: str, noisy: str) -> None:
    root = str(pairs(tmp_path / "p", clean, noisy, 3))
    with pytest.raises(DataError, match=rf"kinds of noise.*dataset\.csv.*`{noisy},0.2` and `{clean},0`"):
        load_images(root)
    report = check(root)
    assert "kinds of noise" in report.problems[0]["problem"]
    assert report.labels is None
    with pytest.raises(DataError, match="kinds of noise"):
        prepare(PrepareConfig(source=root, dest=tmp_path / "o.zip"))
    assert not (tmp_path / "o.zip").exists()
    (tmp_path / "p" / "dataset.csv").write_text(f"file,sigma\n{noisy},0.2\n{clean},0\n")
    stated = load_images(str(tmp_path / "p"))
    assert stated.noise_summary() == "3 of 6 images came with noise: 3 at 0.2"
    assert "dataset.csv" not in stated.notes[0]
    assert load_images(str(pairs(tmp_path / "q", "cat", "dog", 3))).label_dim == 2  # control: other names are classes


VERSIONS = [
    *(("input", "target"), ("LR", "HR"), ("low", "high"), ("noisy", "gt"), ("raw", "clean"), ("lq", "gt")),
    *(("short", "long"), ("noisy_images", "clean_images"), ("set_train_LR_bicubic", "set_train_HR")),
]


@pytest.mark.parametrize(("worse", "better"), VERSIONS)
def test_versions_of_one_scene_are_no_classes_and_are_asked_about(tmp_path: Path, worse: str, better: str) -> None:
    found = describe_folders([f"{folder}/{i:03d}.png" for folder in sorted((worse, better)) for i in range(5)])
    assert (found.labels, found.clean, found.noisy) == (None, (better,), (worse,))
    assert found.group is not None
    assert len(set(found.group.tolist())) == 5
    root = write_folder(
        tmp_path / "p", {f"{f}/{i}.png": png(rgb(1, seed=i)[0]) for f in (worse, better) for i in range(3)}
    )
    with pytest.raises(DataError, match=rf"dataset\.csv .*`{worse},0.2` and `{better},0`"):
        load_images(str(root))
    (root / "dataset.csv").write_text(f"file,sigma\n{worse},0.2\n{better},0\n")
    assert load_images(str(root)).noise_summary() == "3 of 6 images came with noise: 3 at 0.2"


@pytest.mark.parametrize(
    "folders",
    [("cat", "dog"), ("low", "medium", "high"), ("raw", "ripe"), ("original", "fake"), ("a", "b"), ("hr", "x")],
)
def test_folders_of_other_names_are_classes_even_where_their_images_have_the_same_names(folders: tuple[str]) -> None:
    found = describe_folders([f"{folder}/{i:03d}.png" for folder in sorted(folders) for i in range(5)])
    assert found.classes == tuple(sorted(folders))
    assert (found.noisy, found.notes) == ((), ())


def test_words_that_are_classes_elsewhere_are_asked_about_where_names_are_the_same_and_labels_answer(
    tmp_path: Path,
) -> None:
    apart = describe_folders([f"{folder}/{folder[0]}x{i}.png" for folder in ("high", "low") for i in range(5)])
    assert apart.classes == ("high", "low")
    assert "are taken as classes, since they share hardly any name" in apart.notes[0]
    root = write_folder(tmp_path / "p", {f"{f}/{i}.png": png(rgb(1)[0]) for f in ("low", "high") for i in range(3)})
    with pytest.raises(DataError, match="if they are classes, a header `file,label` and rows as in `low,low`"):
        load_images(str(root))
    (root / "dataset.csv").write_text("file,label\nlow,low\nhigh,high\n")
    assert load_images(str(root)).classes == ("high", "low")


def test_kinds_of_noise_below_classes_and_parts_are_asked_about_by_their_place(tmp_path: Path) -> None:
    below = describe_folders([f"{a}/{b}/{i}.png" for a in ("cat", "dog") for b in ("clean", "noisy") for i in range(3)])
    assert below.classes == ("cat", "dog")
    assert below.noisy == ("cat/noisy", "dog/noisy")
    assert below.group is not None
    assert len(set(below.group.tolist())) == 6
    names = [f"{a}/{b}/{i}.png" for a in ("Test", "Train") for b in ("noisy", "clean") for i in range(3)]
    root = write_folder(tmp_path / "p", {name: png(rgb(1)[0]) for name in names})
    with pytest.raises(DataError, match=r"as in `Test/noisy,0\.2` and `Test/clean,0`"):
        load_images(str(root))
    rows = "".join(f"{a}/noisy,0.2\n{a}/clean,0\n" for a in ("Test", "Train"))
    (root / "dataset.csv").write_text("file,sigma\n" + rows)
    assert load_images(str(root)).already_noisy == 3
    pairs_in_classes = [f"{a}/{i}_{b}.png" for a in ("cat", "dog") for i in range(3) for b in ("clean", "noisy")]
    inside = describe_folders(pairs_in_classes)
    assert inside.classes == ("cat", "dog")
    assert inside.group is not None
    assert len(set(inside.group.tolist())) == 6


def test_something_is_held_out_of_few_scenes(tmp_path: Path) -> None:
    for scenes in range(2, 9):
        root = str(pairs(tmp_path / str(scenes), count=scenes))
        Path(root, "dataset.csv").write_text("file,sigma\nnoisy,0.2\nclean,0\n")
        train, heldout = (load_images(root, split=split, holdout=0.01) for split in ("train", "heldout"))
        assert len(heldout) == 2
        assert len(train) == 2 * scenes - 2


def test_the_clean_and_the_noisy_image_of_one_scene_are_held_out_together(tmp_path: Path) -> None:
    root = pairs(tmp_path / "p")
    (root / "dataset.csv").write_text("file,sigma\nnoisy,0.2\nclean,0\n")
    scenes = [
        set((load_images(str(root), split=split, holdout=0.3).ids % 100).tolist()) for split in ("train", "heldout")
    ]
    counts = [len(load_images(str(root), split=split, holdout=0.3)) for split in ("train", "heldout")]
    assert not scenes[0] & scenes[1]
    assert counts == [2 * len(scenes[0]), 2 * len(scenes[1])]
    assert abs(counts[1] / 200 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 100)
    other = pairs(tmp_path / "q", "cat", "dog")  # control: images that are no pairs are held out one by one
    apart = [
        set((load_images(str(other), split=split, holdout=0.3).ids % 100).tolist()) for split in ("train", "heldout")
    ]
    assert apart[0] & apart[1]
    for kind in ("zip", "npz"):
        prepare(PrepareConfig(source=str(root), dest=tmp_path / f"o.{kind}"))
        prepared = load_images(str(tmp_path / f"o.{kind}"), split="heldout", holdout=0.3)
        np.testing.assert_array_equal(prepared.ids, load_images(str(root), split="heldout", holdout=0.3).ids)


@pytest.mark.parametrize(
    ("clean", "noisy"),
    [
        ("clean/{}.png", "noisy/{}.png"),
        ("clean/{}_clean.png", "noisy/{}_noisy.png"),
        ("GT/gt_{}.png", "sigma25/sigma25_{}.png"),
        ("a/{}-original.png", "a/{}-noise.png"),
        ("{}_GT.png", "{}_NOISY.png"),
        ("clean/x/{}.png", "noisy/x/{}.tif"),
    ],
)
def test_pairs_are_never_on_both_sides_however_they_are_named(tmp_path: Path, clean: str, noisy: str) -> None:
    files, sigma = {}, ["file,sigma"]
    for i in range(60):
        for pattern, level in ((clean, 0), (noisy, 0.2)):
            name = pattern.format(f"{i:03d}")
            pixels = rgb(1, seed=i + 1000 * bool(level))[0]
            image = Image.fromarray(pixels.transpose(1, 2, 0))
            files[name] = encode(image, "TIFF" if name.endswith("tif") else "PNG")
            sigma.append(f"{name},{level}")
    root = write_folder(tmp_path / "d", {**files, "dataset.csv": "\n".join(sigma).encode()})
    names = sorted(files)
    digits = ["".join(c for c in re.sub(r"sigma25", "", name) if c.isdigit()) for name in names]
    sides = [{digits[k] for k in load_images(str(root), split=s, holdout=0.3).ids} for s in ("train", "heldout")]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_files_of_other_kinds_are_counted_with_what_reads_them(tmp_path: Path) -> None:
    names = [f"{i}.{kind}" for i in range(200) for kind in ("dcm", "fits", "nii.gz", "heic", "jp2")]
    files = {**dict.fromkeys(names, b"x"), "README.md": b"x", "a.png": png(rgb(1)[0])}
    note = load_images(str(write_folder(tmp_path / "m", files)), holdout=0.0).notes
    assert len(note) == 1
    assert note[0].startswith("1,000 files are not read: 200 .dcm (for pydicom), 200 .fits (read where it lies alone)")
    assert "200 .nii.gz (read where it lies alone)" in note[0]
    assert "give FITS, NIfTI by their own path, or in a folder of their own" in note[0]
    assert "one .npz" in note[0]
    only = write_folder(tmp_path / "only", {"a.png": png(rgb(1)[0]), "README.md": b"x", "LICENSE": b"x"})
    assert load_images(str(only), holdout=0.0).notes == ()


def sky(turned: bool, kind: str) -> bytes:
    """Blue above green; turned: stored on its side, with the EXIF tag that says so."""
    x = np.zeros((16, 16, 3), np.uint8)
    x[:8], x[8:] = (90, 150, 230), (60, 120, 40)
    image, exif = Image.fromarray(x), Image.Exif()
    if turned:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    return encode(image, kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_stored_on_their_side_are_turned_upright_and_counted(tmp_path: Path, kind: str) -> None:
    root = write_folder(tmp_path / "e", {f"{i}.{kind.lower()}": sky(i % 2 == 1, kind) for i in range(6)})
    loaded = load_images(str(root), holdout=0.0)
    assert (loaded.images[:, 2, :6].astype(int) - loaded.images[:, 2, -6:] > 100).all()
    assert loaded.notes == ("3 converted: an image stored on its side or mirrored (EXIF), now upright",)
    assert any("3 converted" in note for note in check(str(root)).notes)
    done = prepare(PrepareConfig(source=str(root), dest=tmp_path / "o.zip"))
    assert list(done.converted.values()) == [3]
    np.testing.assert_array_equal(load_images(str(tmp_path / "o.zip"), holdout=0.0).images, loaded.images)


def test_a_bad_held_out_image_is_found_before_training(tmp_path: Path) -> None:
    names = [f"{part}/{i}.png" for part in ("train", "test") for i in range(4)]
    root = tree(tmp_path / "t", names)
    job = resolve(settings_from({"data": str(root)}))
    job.check_references()  # control: nothing is wrong yet
    good = (root / "test" / "3.png").read_bytes()
    for bad, words in ((good[:-60], "damaged"), (png(rgb(1, 10)[0]), "10 x 10")):
        (root / "test" / "3.png").write_bytes(bad)
        load_images(str(root), split="train")  # control: training sees nothing of it
        references.cache_clear()
        with pytest.raises(DataError, match=rf"3\.png.*{words}"):
            job.check_references()
