"""Noise levels and labels in tables as people write them: read, or named; never silently clean."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import png, rgb, write_folder, write_zip

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.rows import match_rows
from ambient_train.data.images import ImageSet
from ambient_train.data.load import load_images

LEVELS = [0.0, 0.05, 0.1, 0.15, 0.0, 0.05]
NAMES = [f"{i:03d}.png" for i in range(6)]
IMAGES = {name: png(x) for name, x in zip(NAMES, rgb(6), strict=True)}
BODY = "".join(f"{name},{level}\n" for name, level in zip(NAMES, LEVELS, strict=True))
TABLE = "file,sigma\n" + BODY
LABELLED = "file,label,noise_std\n" + "".join(
    row.replace(",", f",{i % 2},") for i, row in enumerate(BODY.splitlines(True))
)
INDEXED = ",file,sigma\n" + "".join(f"{i},{row}" for i, row in enumerate(BODY.splitlines(keepends=True)))
MARKDOWN = "| file | sigma |\n|---|---|\n" + re.sub("(.*),(.*)", r"| \1 | \2 |", BODY)
AS_JSON = "".join(json.dumps({"file_name": n, "sigma": s}) + "\n" for n, s in zip(NAMES, LEVELS, strict=True))

READ = {
    "plain": ("dataset.csv", TABLE.encode()),
    "byte-order mark, CRLF": ("dataset.csv", TABLE.replace("\n", "\r\n").encode("utf-8-sig")),
    "UTF-16": ("dataset.csv", TABLE.encode("utf-16")),
    "semicolon, decimal comma": ("dataset.csv", TABLE.replace(",", ";").replace(";0.", ";0,").encode()),
    "semicolon, decimal point": ("dataset.csv", TABLE.replace(",", ";").encode()),
    "tab": ("dataset.csv", TABLE.replace(",", "\t").encode()),
    "pipe": ("dataset.csv", TABLE.replace(",", "|").encode()),
    "pipe and blanks": ("dataset.csv", TABLE.replace(",", " | ").encode()),
    "Markdown": ("dataset.csv", MARKDOWN.encode()),
    "blanks between": ("dataset.csv", TABLE.replace(",", "   ").encode()),
    "one blank": ("dataset.csv", TABLE.replace(",", " ").encode()),
    "tsv": ("labels.tsv", TABLE.replace(",", "\t").encode()),
    "reversed": ("dataset.csv", ("file,sigma\n" + "".join(sorted(BODY.splitlines(True), reverse=True))).encode()),
    "without endings": ("dataset.csv", TABLE.replace(".png", "").encode()),
    "with a folder": ("dataset.csv", TABLE.replace("00", "/data/set\\00").encode()),
    "blanks": ("dataset.csv", TABLE.replace(",", ", ").encode()),
    "comment": ("dataset.csv", b"# from our pipeline\n" + TABLE.encode()),
    "index column": ("dataset.csv", INDEXED.encode()),
    "upper case": ("Dataset.CSV", TABLE.encode()),
    "JSON lines": ("metadata.jsonl", AS_JSON.encode()),
    "another name": ("noise_levels.csv", TABLE.encode()),
    "another name, lines of JSON": ("levels.jsonl", AS_JSON.encode()),
    **{
        column: ("labels.csv", TABLE.replace("sigma", column).encode())
        for column in ("std", "noise_std", "Noise Level")
    },
    "label and level": ("dataset.csv", LABELLED.encode()),
}


def load(root: Path, files: dict[str, bytes], **options: int) -> ImageSet:
    return load_images(str(write_folder(root, {**IMAGES, **files})), **options)


@pytest.mark.parametrize("kind", READ)
def test_levels_are_read_from_tables_as_people_write_them(tmp_path: Path, kind: str) -> None:
    name, data = READ[kind]
    loaded = load(tmp_path / "set", {name: data})
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n, LEVELS, rtol=1e-6)
    archive = load_images(str(write_zip(tmp_path / "set.zip", {**IMAGES, name: data})))
    assert archive.content_hash == loaded.content_hash
    assert any(name in note for note in loaded.notes) == kind.startswith("another")


def test_a_table_of_another_name_is_read_aloud_and_one_of_the_known_names_in_silence(tmp_path: Path) -> None:
    assert load(tmp_path / "a", {"dataset.csv": TABLE.encode()}).notes == ()
    assert load(tmp_path / "b", {"noise.csv": TABLE.encode()}).notes == (
        "noise levels are read from noise.csv (column sigma)",
    )


REFUSED = {
    "header only": (b"file,sigma\n", "without rows"),
    "no header": (BODY.encode(), "needs a header"),
    "rows missing": (TABLE[: TABLE.index("004")].encode(), r"no row for 004.png \(2 of 6"),
    "blank level": (TABLE.replace("0.15", "").encode(), "row 5 has ''"),
    "text for a level": (TABLE.replace("0.15", "much").encode(), "row 5 has 'much'"),
    "not a number": (TABLE.replace("0.15", "nan").encode(), "finite"),
    "negative": (TABLE.replace("0.15", "-1").encode(), ">= 0"),
    "twice": ((TABLE + "000.png,0\n").encode(), "a second time"),
    "another delimiter": (TABLE.replace(",", ":").encode(), "with comma, semicolon, tab, | or spaces .* 'file:sigma'"),
    "names with blanks": (
        TABLE.replace(",", " ").replace("003", "0 3").encode(),
        "row 5 has 3 of 2: names with spaces",
    ),
    "no name": ((TABLE + ",0\n").encode(), "no file name"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_known_table_that_does_not_fit_is_one_sentence(tmp_path: Path, kind: str) -> None:
    data, words = REFUSED[kind]
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path / "set", {"dataset.csv": data})
    assert str(tmp_path / "set" / "dataset.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_name_no_image_and_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    text = "file,sigma,camera\n" + BODY.replace("\n", ",Leica\n") + "gone.png,0.2,Leica\nlost.png,0.2,Leica\n"
    loaded = load(tmp_path / "set", {"dataset.csv": text.encode()})
    assert loaded.notes == (
        "dataset.csv: the column camera is not read",
        "dataset.csv: 2 rows name no image (first: gone.png)",
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (
            "levels.csv",
            TABLE[: TABLE.index("004")].encode(),
            r"levels.csv has noise levels \(sigma\) for 4 of 6 images",
        ),
        ("levels.csv", BODY.encode(), "not read: levels.csv; noise levels and labels are read from dataset.csv"),
        ("kinds.csv", b"file,kind\n000.png,a\n", "not read: kinds.csv"),
        ("table.txt", b"x", "not read: table.txt"),
        ("noise.npy", b"x", "not read: noise.npy"),
        ("levels.json", b"{}", "not read: levels.json"),
        ("levels.xlsx", b"x", "not read: levels.xlsx"),
        ("deep/er/labels.xlsx", b"x", "not read: deep/er/labels.xlsx"),
    ],
)
def test_a_table_that_is_not_read_is_named_with_what_is(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    loaded = load(tmp_path / "set", {name: data})
    assert loaded.sigma_n is None
    assert len(loaded.notes) == 1
    assert re.match(words, loaded.notes[0])
    assert "sigma" in loaded.notes[0]


def test_two_tables_of_levels_never_mix_and_the_one_left_out_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.full(6, 0.5))
    files = {"dataset.csv": TABLE.encode(), "sigma.npy": (tmp_path / "s.npy").read_bytes(), "other.csv": TABLE.encode()}
    loaded = load(tmp_path / "set", files)
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n, LEVELS)
    assert loaded.notes[0] == "sigma.npy: its sigmas are not used, those of dataset.csv are"
    assert loaded.notes[1].startswith("not read: other.csv")


def test_labels_and_levels_may_stand_in_two_tables(tmp_path: Path) -> None:
    labels = "file,label\n" + "".join(f"{n},{['cat', 'dog'][i % 2]}\n" for i, n in enumerate(NAMES))
    loaded = load(tmp_path / "set", {"labels.csv": labels.encode(), "noise.csv": TABLE.encode()})
    assert loaded.labels is not None
    assert (loaded.labels.tolist(), loaded.classes, loaded.label_dim) == ([0, 1, 0, 1, 0, 1], ("cat", "dog"), 2)
    assert loaded.sigma_n is not None


def test_tables_in_sub_folders_speak_of_the_images_below_them(tmp_path: Path) -> None:
    files = {f"{part}/{n}": data for part in ("train", "test") for n, data in IMAGES.items()}
    tables = {
        f"{part}/metadata.csv": TABLE.replace("0.15", level).encode()
        for part, level in (("train", "0.3"), ("test", "0.4"))
    }
    root = write_folder(tmp_path / "set", {**files, **tables})
    train, test = (load_images(str(root), split=split) for split in ("train", "heldout"))
    assert (float(train.sigma_n[3]), float(test.sigma_n[3])) == (np.float32(0.3), np.float32(0.4))
    os.remove(root / "train" / "metadata.csv")
    with pytest.raises(DataError, match=r"train/000.png: no noise level \(6 of 12 images"):
        load_images(str(root))


def test_a_row_for_a_folder_states_the_level_of_all_images_in_it(tmp_path: Path) -> None:
    files = {f"{part}/{n}": data for part in ("clean", "noisy") for n, data in IMAGES.items()}
    root = write_folder(
        tmp_path / "set", {**files, "dataset.csv": b"file,sigma\nclean/,0\nnoisy,0.2\nnoisy/001.png,0.3\n"}
    )
    loaded = load_images(str(root))
    assert loaded.noise_summary() == "6 of 12 images came with noise: 5 at 0.2, 1 at 0.3"


def test_rows_match_by_name_then_ending_then_last_part_and_only_where_that_is_unique() -> None:
    names = ["a/1.png", "b/1.png", "b/2.png", "b/2.jpg"]
    assert match_rows(["a/1.png", "b/1", "2.jpg"], names, "x")[0] == [0, 1, None, 2]
    assert match_rows(["1.png", "b/2"], names, "x") == ([None, None, None, None], ["1.png", "b/2"])
    assert match_rows(["b"], names, "x")[0] == [None, 0, 0, 0]
