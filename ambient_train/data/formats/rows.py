"""Which row of a table speaks of which image: names as people write them, with and without folder and ending."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.plain_text import printable_line

_Way = Callable[[str], str]


def match_rows(keys: Sequence[Any], names: Sequence[str], where: str) -> tuple[list[int | None], list[str]]:
    """For each image (its name relative to the table) the row that speaks of it or None; and the keys that fit none.

    In this order: the name itself; without its ending; the last part of the path, where it is unique among rows and
    among images, with and without ending; a folder above the image, for all images in it. Raises DataError for a row
    without a name and a name that stands twice.
    """
    table: dict[str, int] = {}
    for row, key in enumerate(keys):
        text = "" if key is None else _plain(str(key))
        if not text or text in table:
            what = f"{printable_line(text)} a second time" if text else "no file name"
            raise DataError(f"{where}: row {row + 2} has {what}")
        table[text] = row
    found: list[int | None] = [table.get(name) for name in names]
    ways: tuple[tuple[_Way, _Way], ...] = ((_stem, str), (_base, _base), (_base_stem, _base_stem))
    for of_name, of_key in ways:
        if None not in found:
            break
        times = Counter(of_key(key) for key in table)
        rows = {of_key(key): row for key, row in table.items()}
        images = Counter(of_name(name) for name in names)
        for i, name in enumerate(names):
            short = of_name(name)
            if found[i] is None and images[short] == 1 and times[short] == 1:
                found[i] = rows[short]
    for i, name in enumerate(names):
        folder = name
        while found[i] is None and (folder := folder.rpartition("/")[0]):
            found[i] = table.get(folder)
    used = {row for row in found if row is not None}
    return found, [key for key, row in table.items() if row not in used]


def _plain(key: str) -> str:
    key = key.strip().replace("\\", "/")
    while key.startswith("./"):
        key = key[2:]
    return key.strip("/")


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _base_stem(name: str) -> str:
    return _stem(_base(name))
