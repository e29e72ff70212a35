"""What the folders of a tree say: classes, a held-out part, or kinds of noise, which are no classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ambient_train.data.formats.classes import from_names

_TRAIN = frozenset(("train", "training"))
_HELDOUT = frozenset(("val", "valid", "validation", "test", "testing", "eval", "heldout"))
_CLEAN = frozenset(
    ("clean", "gt", "ground_truth", "groundtruth", "original", "originals", "reference", "noiseless", "noise_free")
)
_NOISY = re.compile(r"(noisy|noise|noised|sigma|std|degraded|corrupted)([_=-]?\d+([._]\d+)?)?")
_NUMBERED = re.compile(r"^(\d{5}/)?img\d{8}\.\w+$")


@dataclass(frozen=True, eq=False)
class Folders:
    """labels int64 [N] (-1 = unknown) with their classes; heldout bool [N]; group int64 [N]: images of one scene, as
    its clean and its noisy version, share a number. Each None where the folders say nothing of it. clean, noisy: names
    of folders that are kinds of noise.
    """

    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    heldout: np.ndarray | None = None
    group: np.ndarray | None = None
    clean: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def describe_folders(names: Sequence[str]) -> Folders:
    """From the relative names of the images.

    train/ (training/) beside val/, test/ or the like, in any case of letters, is a held-out part; the folders below, or
    else the top ones, are classes in natural order. Not so where they only number the files (EDM's
    00000/img00000000.png), and where all are kinds of noise (clean/, noisy/, sigma25/).
    """
    parts = [name.split("/") for name in names]
    tops = {part[0] for part in parts if len(part) > 1}
    train, held = ({top for top in tops if top.lower() in words} for words in (_TRAIN, _HELDOUT))
    heldout, notes = None, []
    if train and held and tops == train | held:
        heldout = np.array([part[0] in held for part in parts])
        if all(len(part) > 1 for part in parts):
            parts = [part[1:] for part in parts]
    elif train and held:
        others = ", ".join(f"{top}/" for top in sorted(tops - train - held)[:3])
        notes.append(
            f"{', '.join(f'{top}/' for top in sorted(train | held))} are taken as classes like {others} beside them, "
            "not as a training and a held-out part: have only these at the top for that"
        )
    tops = {part[0] for part in parts if len(part) > 1}
    noisy = tuple(sorted(top for top in tops if _NOISY.fullmatch(top.lower())))
    clean = tuple(sorted(top for top in tops if top.lower().replace("-", "_") in _CLEAN))
    if noisy and tops == {*noisy, *clean}:
        scenes = ["/".join(part[1:] if len(part) > 1 else part).rpartition(".")[0] for part in parts]
        group = np.unique(scenes, return_index=True, return_inverse=True)
        return Folders(heldout=heldout, group=group[1][group[2]].astype(np.int64), clean=clean, noisy=noisy)
    if len(tops) < 2 or all(_NUMBERED.match(name) for name in names):
        return Folders(heldout=heldout, notes=tuple(notes))
    labels, classes = from_names([part[0] if len(part) > 1 else None for part in parts])
    return Folders(labels, classes, heldout, notes=tuple(notes))
