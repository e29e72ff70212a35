"""From names to labels 0, 1, 2, ...: natural order (2 before 10), and a map that is kept and printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ambient_train.data.source import Source

_LARGE, _SPARSE = 1000, 20


def natural(names: Iterable[str]) -> list[str]:
    """The different names, numbers in them by value: `2` before `10`, `img2` before `img10`."""

    def key(name: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"(\d+)", name)
        parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
        return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name

    return sorted(set(names), key=key)


def from_names(values: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int64 (-1 where there is no name) and the classes in their order."""
    classes = natural(value for value in values if value is not None)
    place = {name: i for i, name in enumerate(classes)}
    return np.array([-1 if value is None else place[value] for value in values], np.int64), tuple(classes)


def settled(source: Source) -> Source:
    """The source with labels that a network can count by.

    A network has as many classes as the largest label + 1. Where that is beyond 1,000 and more than 20 times the number
    of different labels (dates, identifiers), they are numbered 0, 1, ... in their order, the map is kept in `classes`
    and a note says so. A note asks about labels that hardly any two images share.
    """
    if source.labels is None:
        return source
    values = np.unique(source.labels[source.labels >= 0])
    if len(values) == 0:
        return source
    top, notes, labels, classes = int(values[-1]), [], source.labels, source.classes
    if top + 1 > max(_LARGE, _SPARSE * len(values)):
        labels = np.where(labels >= 0, np.searchsorted(values, labels), -1)
        classes = tuple(str(v) if classes is None or v >= len(classes) else classes[v] for v in values.tolist())
        notes.append(
            f"labels up to {top:,} with {len(values):,} different values are numbered 0 to {len(values) - 1:,} "
            "in their order; the class map holds the values"
        )
    if len(values) > _SPARSE and 2 * len(values) > source.count:
        notes.append(f"{len(values):,} different labels for {source.count:,} images: are they classes?")
    return replace(source, labels=labels, classes=classes, notes=(*source.notes, *notes)) if notes else source
