"""What a tree of files says about its images: labels, noise levels, and a held-out part.

In this order: `dataset.json` (EDM, StyleGAN; `labels`, and ours: `sigma`), a CSV named dataset.csv, labels.csv or
metadata.csv (columns file, label, sigma), sub-folders as classes. Trees with train/ beside val/, valid/, validation/
or test/ (ImageNet) and CelebA's list_eval_partition.txt give a held-out part. `sigma.npy` holds one level an image in
sorted order.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.arrays import as_labels, as_sigma, read_npy
from ambient_train.data.formats.trees import Tree

JSON_NAME, SIGMA_NAME, PARTITION_NAME = "dataset.json", "sigma.npy", "list_eval_partition.txt"
CSV_NAMES = ("dataset.csv", "labels.csv", "metadata.csv")
FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_id", "path", "name")
LABEL_COLUMNS = ("label", "class", "class_id", "target")
SIGMA_COLUMNS = ("sigma", "sigma_n", "noise")
_HELDOUT_FOLDERS = frozenset(("val", "valid", "validation", "test"))
_NUMBERED = re.compile(r"^(\d{5}/)?img\d{8}\.\w+$")


@dataclass(frozen=True, eq=False)
class Known:
    """Columns for the images of a tree, in its order; a label of -1 says that it is unknown for that image."""

    labels: np.ndarray | None = None
    sigma: np.ndarray | None = None
    heldout: np.ndarray | None = None
    classes: tuple[str, ...] | None = None


def describe_tree(tree: Tree) -> Known:
    """Read what the tree says about its images. Raises DataError naming the file that is wrong."""
    prefix = _common_prefix((*tree.images, *(name for name in tree.other if name.endswith((".json", ".csv", ".txt")))))
    files = {name[len(prefix) :]: name for name in tree.other if name.startswith(prefix)}
    names = [name[len(prefix) :] for name in tree.images]
    known = Known()
    table = next((name for name in CSV_NAMES if name in files), None)
    if JSON_NAME in files:
        known = _from_json(tree, files[JSON_NAME], names)
    elif table is not None:
        known = _from_csv(tree, files[table], names)
    else:
        known = _from_folders(names)
    if SIGMA_NAME in files:
        where = tree.where(files[SIGMA_NAME])
        data = tree.read(files[SIGMA_NAME])
        known = replace(known, sigma=as_sigma(read_npy(io.BytesIO(data), where, len(data)), len(names), where))
    if PARTITION_NAME in files:
        known = replace(known, heldout=_celeba_partition(tree, files[PARTITION_NAME], names))
    return known


def _common_prefix(names: Sequence[str]) -> str:
    """The directories that all names share, with a trailing slash."""
    parts = [name.split("/")[:-1] for name in (min(names), max(names))]
    shared = []
    for a, b in zip(*parts, strict=False):
        if a != b:
            break
        shared.append(a + "/")
    return "".join(shared)


def _text(tree: Tree, name: str) -> str:
    try:
        return tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{tree.where(name)}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _from_json(tree: Tree, file: str, names: Sequence[str]) -> Known:
    where = tree.where(file)
    try:
        content = json.loads(_text(tree, file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: must hold an object with `labels`, not a {type(content).__name__}")
    labels = _json_column(content.get("labels"), names, where, "labels")
    sigma = _json_column(content.get("sigma"), names, where, "sigma")
    count = len(names)
    classes = content.get("label_names")
    known_classes = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return Known(
        classes=tuple(classes) if known_classes and classes else None,
        labels=None if labels is None else as_labels(labels, count, where),
        sigma=None if sigma is None else as_sigma(sigma, count, where),
    )


def _json_column(pairs: Any, names: Sequence[str], where: str, key: str) -> np.ndarray | None:
    if pairs is None:
        return None
    try:
        table = dict(pairs)
        values = [table[name] for name in names]
    except KeyError as error:
        raise DataError(f"{where}: {key!r} has no entry for {error}") from None
    except (TypeError, ValueError):
        raise DataError(f"{where}: {key!r} must be a list of [file name, value] pairs or null") from None
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "uif":
        raise DataError(f"{where}: {key!r} must hold numbers")
    return array


def _from_csv(tree: Tree, file: str, names: Sequence[str]) -> Known:
    where = tree.where(file)
    try:
        rows = list(csv.DictReader(io.StringIO(_text(tree, file), newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{where}: not a readable CSV ({error})") from None
    columns = list(rows[0]) if rows else []

    def pick(choices: Sequence[str]) -> str | None:
        return next((c for c in columns if isinstance(c, str) and c.strip().lower() in choices), None)

    key, label, sigma = pick(FILE_COLUMNS), pick(LABEL_COLUMNS), pick(SIGMA_COLUMNS)
    if key is None or (label is None and sigma is None):
        raise DataError(f"{where}: needs a header with a column `file` and one named `label` or `sigma`")
    table: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        name = row[key]
        if name is None or name in table:
            raise DataError(f"{where}: row {number} has {'no file name' if name is None else f'{name} a second time'}")
        table[name] = row
    missing = [name for name in names if name not in table]
    if missing:
        raise DataError(f"{where}: no row for {missing[0]} ({len(missing)} of {len(names)} images have none)")
    labels, classes = None, None
    if label is not None:
        labels, classes = _text_labels([table[name][label] for name in names], where)
    levels = None
    if sigma is not None:
        try:
            levels = as_sigma(np.array([float(table[name][sigma]) for name in names]), len(names), where)
        except (TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{where}: the column {sigma!r} must hold a number in each row ({error})") from None
    return Known(labels=labels, sigma=levels, classes=classes)


def _text_labels(values: Sequence[Any], where: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(f"{where}: a label is missing")
    if all(re.fullmatch(r"\d{1,9}", value.strip()) for value in values):
        return np.array([int(value) for value in values], np.int64), None
    classes = sorted(set(values))
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[value] for value in values], np.int64), tuple(classes)


def _from_folders(names: Sequence[str]) -> Known:
    """Sub-folders as classes, unless they only number the files (EDM's 00000/img00000000.png)."""
    parts = [name.split("/") for name in names]
    tops = {part[0] for part in parts if len(part) > 1}
    heldout = None
    if "train" in tops and tops & _HELDOUT_FOLDERS and tops <= _HELDOUT_FOLDERS | {"train"}:
        heldout = np.array([part[0] in _HELDOUT_FOLDERS for part in parts])
        if all(len(part) > 1 for part in parts):
            parts = [part[1:] for part in parts]
    classes = sorted({part[0] for part in parts if len(part) > 1})
    if len(classes) < 2 or all(_NUMBERED.match(name) for name in names):
        return Known(heldout=heldout)
    place = {name: i for i, name in enumerate(classes)}
    labels = np.array([place[part[0]] if len(part) > 1 else -1 for part in parts], np.int64)
    return Known(labels=labels, heldout=heldout, classes=tuple(classes))


def _celeba_partition(tree: Tree, file: str, names: Sequence[str]) -> np.ndarray:
    """CelebA's evaluation partition (Liu et al. 2015): lines `000001.jpg 0`, 0 = train, 1 = validation, 2 = test."""
    where = tree.where(file)
    table = {}
    for number, line in enumerate(_text(tree, file).splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise DataError(f"{where}:{number}: must be a file name and 0, 1 or 2")
        table[fields[0]] = fields[1] != "0"
    try:
        return np.array([table[name.split("/")[-1]] for name in names])
    except KeyError as error:
        raise DataError(f"{where}: no line for {error}") from None
