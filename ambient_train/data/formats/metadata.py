"""What a tree of files says about its images: labels, noise levels, and a held-out part.

`dataset.json` (EDM, StyleGAN; `labels`, and ours: `sigma`), tables named dataset, labels or metadata (.csv, .tsv,
.jsonl; columns file, label, sigma and their synonyms) in the folder of the images or above it, a table of any name
with a column of noise levels for every image, `sigma.npy` (one level an image in sorted order), CelebA's
list_eval_partition.txt, and the folders themselves. What is not read is named.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError, first_line
from ambient_theory.shared.npy import read_npy
from ambient_theory.shared.parsing import parse_json
from ambient_theory.shared.tables import DELIMITERS, Table, read_table, read_text
from ambient_train.data.formats import columns
from ambient_train.data.formats.arrays import as_labels, as_sigma
from ambient_train.data.formats.classes import from_names
from ambient_train.data.formats.folders import Folders, describe_folders
from ambient_train.data.formats.noise_arrays import as_deviation, read_from
from ambient_train.data.formats.passed_over import describes, passed_over, suffix
from ambient_train.data.formats.rows import match_rows
from ambient_train.data.formats.trees import Tree

_TABLES = frozenset(
    (".csv", ".tsv", ".json", ".jsonl", ".npy", ".txt", ".xlsx", ".xls", ".parquet", ".mat", ".pkl", ".pickle", ".dat")
)
_MAX_UNASKED_BYTES = 32 * 2**20
_NAMED = 5
_HOW = "noise levels and labels are read from dataset.csv (columns file, sigma, label) and sigma.npy"


@dataclass(frozen=True, eq=False)
class Known:
    """Columns for the images of a tree, in its order; a label of -1 says that it is unknown for that image."""

    labels: np.ndarray | None = None
    sigma_n: np.ndarray | None = None
    heldout: np.ndarray | None = None
    group: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    question: str = ""


@dataclass
class _Gathered:
    """What the tables have said so far: text or number of each image's label and level, and which file said it."""

    labels: list[Any]
    sigma_n: list[float | None]
    classes: tuple[str, ...] | None = None
    group: np.ndarray | None = None
    label_file: str | None = None
    sigma_file: str | None = None
    unlabelled: bool = False  # dataset.json says that there are no labels
    read: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def describe_tree(tree: Tree) -> Known:
    """Read what the tree says about its images. Raises DataError naming the file that is wrong."""
    found = _Gathered([None] * len(tree.images), [None] * len(tree.images))
    for file in sorted(tree.other, key=lambda name: (name.count("/"), name.lower())):
        base = file.rsplit("/", 1)[-1]
        if base.lower() == columns.JSON_NAME:
            _take_json(tree, file, found)
        elif columns.is_table_name(base):
            _take_table(tree, file, _read(tree, file), found)
    _take_sigma_npy(tree, found)
    heldout = _take_partition(tree, found)
    if found.sigma_file is None:
        _look_for_levels(tree, found)
    folders = describe_folders(_without_shared_folders(tree.flat_names()))
    labels, classes = _labels(tree, found, folders)
    sigma = _sigma(tree, found)
    asked, said = _noise_folders(folders, sigma, tree, found.label_file is not None)
    notes = [*found.notes, *folders.notes, *said, *_unread(tree, found.read)]
    heldout = folders.heldout if heldout is None else heldout
    group = folders.group if found.group is None else found.group
    return Known(labels, sigma, heldout, group, classes, tuple(notes), asked)


def _without_shared_folders(names: Sequence[str]) -> list[str]:
    """Names below the directories that all of them share."""
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    depth = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return ["/".join(name.split("/")[depth:]) for name in names]


def _read(tree: Tree, file: str) -> Table:
    return read_table(tree.read(file), tree.where(file))


def _below(tree: Tree, file: str, climb: bool = False) -> tuple[list[int], list[str]]:
    """The images in the folder of `file` and below, by index and by name relative to it. climb: where there are none,
    those of the folder above, and so on."""
    folder = file.rpartition("/")[0]
    while True:
        start = folder + "/" if folder else ""
        index = [i for i, name in enumerate(tree.images) if name.startswith(start)]
        if index or not folder or not climb:
            return index, [tree.images[i][len(start) :] for i in index]
        folder = folder.rpartition("/")[0]


def _take_json(tree: Tree, file: str, found: _Gathered) -> None:
    where = tree.where(file)
    try:
        content = parse_json(read_text(tree.read(file), where))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: not valid JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: must hold an object with `labels`, not a {type(content).__name__}")
    index, names = _below(tree, file)
    if not index:
        return
    found.read.add(file)
    labels = _json_column(content.get("labels"), names, where, "labels")
    sigma = _json_column(content.get("sigma"), names, where, "sigma")
    if labels is not None:
        values = as_labels(labels, len(names), where).tolist()
        _put(found, "label", file, index, values)
        known = content.get("label_names")
        if isinstance(known, list) and known and all(isinstance(name, str) for name in known):
            found.classes = tuple(known)
    elif "labels" in content:
        found.unlabelled = True
    group = _json_column(content.get("group"), names, where, "group")
    if group is not None and len(names) == len(tree.images):
        found.group = as_labels(group, len(names), where)
    if sigma is not None:
        _put(found, "sigma", file, index, as_sigma(sigma, len(names), where).tolist())


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


def _take_table(tree: Tree, file: str, table: Table, found: _Gathered) -> None:
    """A table that is read by its name: it must fit."""
    where = table.where
    index, names = _below(tree, file)
    if not index:
        return
    key = columns.pick(table.columns, columns.FILE_COLUMNS)
    label = columns.pick(table.columns, columns.LABEL_COLUMNS)
    sigma = columns.pick(table.columns, columns.SIGMA_COLUMNS)
    if key is None:
        raise DataError(
            f"{where}: needs a header with a column `file` and one named `label` or `sigma`, with {DELIMITERS} between "
            f"them; its columns are {', '.join(repr(c)[:40] for c in table.columns[:_NAMED])}"
        )
    found.read.add(file)
    others = [c for c in table.columns if c not in (key, label, sigma) and isinstance(c, str) and c.strip()]
    if others:
        shown = ", ".join(others[:_NAMED]) + ", ..." * (len(others) > _NAMED)
        one = len(others) == 1
        found.notes.append(f"{file}: the column{'' if one else 's'} {shown} {'is' if one else 'are'} not read")
    if label is None and sigma is None:
        return
    rows, unused = match_rows([row.get(key) for row in table.rows], names, where)
    missing = [name for name, row in zip(names, rows, strict=True) if row is None]
    if missing:
        raise DataError(f"{where}: no row for {missing[0]} ({len(missing)} of {len(names)} images have none)")
    if unused:
        found.notes.append(f"{file}: {len(unused):,} rows name no image (first: {unused[0]})")
    chosen = [row for row in rows if row is not None]
    if label is not None:
        texts = [str(table.rows[row].get(label) if table.rows[row].get(label) is not None else "") for row in chosen]
        if not all(text.strip() for text in texts):
            raise DataError(f"{where}: a label is missing (for {names[[bool(t.strip()) for t in texts].index(False)]})")
        _put(found, "label", file, index, texts)
    if sigma is not None:
        levels = as_deviation(np.array([table.number(row, sigma) for row in chosen]), sigma, where)
        _put(found, "sigma", file, index, as_sigma(levels, len(names), where).tolist())
        if columns.NOISE_NAMES[columns.plain(sigma)][0] != columns.DEVIATION:
            found.notes.append(read_from(sigma, f"{file} (column {sigma})"))


def _put(found: _Gathered, what: str, file: str, index: Sequence[int], values: Sequence[Any]) -> None:
    """Take a column, unless a table before has said it of one of these images: then a note says which one counts."""
    column, place = (found.labels, "label_file") if what == "label" else (found.sigma_n, "sigma_file")
    if any(column[i] is not None for i in index):
        found.notes.append(f"{file}: its {what}s are not used, those of {getattr(found, place)} are")
        return
    for i, value in zip(index, values, strict=True):
        column[i] = value
    setattr(found, place, file)


def _take_sigma_npy(tree: Tree, found: _Gathered) -> None:
    for file in tree.other:
        if file.rsplit("/", 1)[-1].lower() != columns.SIGMA_NAME:
            continue
        index, names = _below(tree, file)
        if not index:
            continue
        data, where = tree.read(file), tree.where(file)
        found.read.add(file)
        levels = as_sigma(read_npy(io.BytesIO(data), where, len(data)), len(names), where)
        _put(found, "sigma", file, index, levels.tolist())


def _look_for_levels(tree: Tree, found: _Gathered) -> None:
    """A table of any name is read where it has a column of noise levels and a row for every image below it."""
    for file in tree.other:
        if suffix(file) not in columns.TABLE_SUFFIXES or file in found.read or tree.sizes[file] > _MAX_UNASKED_BYTES:
            continue
        index, names = _below(tree, file, climb=True)
        try:
            table = _read(tree, file)
            key = columns.pick(table.columns, columns.FILE_COLUMNS)
            sigma = columns.pick(table.columns, columns.SIGMA_COLUMNS)
            if key is None or sigma is None:
                continue
            rows, unused = match_rows([row.get(key) for row in table.rows], names, table.where)
            matched = [row for row in rows if row is not None]
            if len(matched) < len(names):
                found.notes.append(
                    f"{file} has noise levels ({sigma}) for {len(matched):,} of {len(names):,} images and is not used: "
                    "give every image a row (0 = clean)"
                )
                found.read.add(file)
                continue
            stated = as_deviation(np.array([table.number(row, sigma) for row in matched]), sigma, table.where)
            levels = as_sigma(stated, len(names), table.where)
        except DataError:  # it may be about something else; it is named with what is not read
            continue
        _put(found, "sigma", file, index, levels.tolist())
        found.read.add(file)
        found.notes.append(read_from(sigma, f"{file} (column {sigma})"))
        if unused:
            found.notes.append(f"{file}: {len(unused):,} rows name no image (first: {unused[0]})")


def _labels(tree: Tree, found: _Gathered, folders: Folders) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if found.label_file is None:
        return (None, None) if found.unlabelled else (folders.labels, folders.classes)
    texts = [None if value is None else str(value) for value in found.labels]
    missing = [name for name, text in zip(tree.images, texts, strict=True) if text is None]
    if missing:
        found.notes.append(
            f"{len(missing):,} of {len(texts):,} images have no label in {found.label_file} (first: {missing[0]})"
        )
    if all(text is None or (text.strip().isascii() and text.strip().isdecimal() and len(text) < 10) for text in texts):
        return np.array([-1 if text is None else int(text) for text in texts], np.int64), found.classes
    return from_names(texts)


def _sigma(tree: Tree, found: _Gathered) -> np.ndarray | None:
    if found.sigma_file is None:
        return None
    missing = [name for name, level in zip(tree.images, found.sigma_n, strict=True) if level is None]
    if missing:
        raise DataError(
            f"{tree.where(missing[0])}: no noise level ({len(missing)} of {len(tree.images)} images have none, where "
            f"{found.sigma_file} gives one to the others; 0 is clean)"
        )
    return np.array(found.sigma_n, np.float32)


def _noise_folders(folders: Folders, sigma: np.ndarray | None, tree: Tree, labelled: bool) -> tuple[str, list[str]]:
    """(what must be answered, notes) where folders are kinds of noise. labelled: a table says what the classes are."""
    if not folders.noisy or (folders.may_be_classes and labelled):
        return "", []
    shown = ", ".join(f"{name}/" for name in (*folders.clean, *folders.noisy)[:_NAMED])
    if sigma is not None or tree.states_levels:
        text = f"{shown} are taken as kinds of noise, not as classes; images of one name are held out together"
        return "", [text]
    first = folders.noisy[0]
    what = "are kinds of noise, or versions of one scene, not classes"
    if folders.may_be_classes:
        what = "hold images of the same names, as versions of one scene do and classes seldom"
    return (
        f"{shown} {what}, and nothing states how much noise is in each: write a dataset.csv "
        f"beside them with a header `file,sigma` and a row for each folder, as in `{first},0.2`"
        + (f" and `{folders.clean[0]},0`" if folders.clean else "")
        + " (0 is clean; `ambient data noise` estimates the level and writes that table), or give the path of one "
        "of the folders"
        + f"; if they are classes, a header `file,label` and rows as in `{first},{first}` say so"
        * folders.may_be_classes
    ), []


def _take_partition(tree: Tree, found: _Gathered) -> np.ndarray | None:
    """CelebA's evaluation partition (Liu et al. 2015): lines `000001.jpg 0`, 0 = train, 1 = validation, 2 = test."""
    file = next((name for name in tree.other if name.rsplit("/", 1)[-1].lower() == columns.PARTITION_NAME), None)
    if file is None:
        return None
    where = tree.where(file)
    table = {}
    for number, line in enumerate(read_text(tree.read(file), where).splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise DataError(f"{where}:{number}: must be a file name and 0, 1 or 2")
        table[fields[0]] = fields[1] != "0"
    found.read.add(file)
    try:
        return np.array([table[name.split("/")[-1]] for name in tree.images])
    except KeyError as error:
        raise DataError(f"{where}: no line for {error}") from None


def _unread(tree: Tree, read: set[str]) -> list[str]:
    """One sentence on tables that are not read, by name, and one on the other files, by kind."""
    others = [name for name in tree.other if name not in read and not describes(name)]
    counts = Counter(suffix(name) for name in others)
    few = {kind for kind in _TABLES if counts[kind] <= _NAMED}  # one for each photograph is a kind of file
    named = [name for name in others if suffix(name) in few]
    notes = [*passed_over(name for name in others if suffix(name) not in few)]
    if named:
        shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
        notes.insert(0, f"not read: {shown}; {_HOW}")
    return notes
