"""What the folders of a tree say: classes, a held-out part, or kinds of noise, which are no classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ambient_train.data.formats.classes import from_names

_ABOUT = re.compile(r"^(images?|imgs?|data)[_ .-]*|[_ .-]*(set|images?|imgs?|data|split|(19|20)\d\d)$")
"""What stands beside the name of a part, as in `Train_Set`, `images_test` and `val2017`."""
_TRAIN = frozenset(("train", "training"))
_HELDOUT = frozenset(("val", "valid", "validation", "test", "testing", "eval", "heldout"))
_CLEAN = frozenset(
    ("clean", "gt", "ground_truth", "groundtruth", "original", "originals", "reference", "noiseless", "noise_free")
)
_NOISY = re.compile(r"(noisy|noise|noised|sigma|std|degraded|corrupted)([_=-]?\d+([._]\d+)?)?")
_WORD = r"(?:noisy|noise|noised|sigma|std|degraded|corrupted|clean|gt|ground_?truth|original|reference)(?:[=-]?\d+)?"
_KIND = re.compile(rf"(?:^{_WORD}[_ .-]+|[_ .-]+{_WORD}(?=$|[_ .-]))")
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


def scenes(names: Sequence[str], tops_of: Sequence[Sequence[str]]) -> list[str]:
    """What each image shows, from its name without ending and without the word for its noise: `001_noisy` is `001`.

    Names keep such words where two images of one folder (`tops_of`, the parts of their paths) would be one scene.
    """
    stems = [name.rpartition(".")[0] for name in names]
    short = ["/".join((*stem.split("/")[:-1], _KIND.sub("", stem.split("/")[-1].lower()))) for stem in stems]
    places = {(part[0] if len(part) > 1 else "", scene) for part, scene in zip(tops_of, short, strict=True)}
    return short if len(places) == len(names) else stems


def _together(names: Sequence[str]) -> np.ndarray:
    """int64 [N]: the least position of an image of the same scene."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def describe_folders(names: Sequence[str]) -> Folders:
    """From the relative names of the images.

    train/ (training/) beside val/, test/ or the like, in any case of letters, is a held-out part; the folders below, or
    else the top ones, are classes in natural order. Not so where they only number the files (EDM's
    00000/img00000000.png), and where all are kinds of noise (clean/, noisy/, sigma25/).
    """
    parts = [name.split("/") for name in names]
    tops = {part[0] for part in parts if len(part) > 1}
    train, held = ({top for top in tops if _ABOUT.sub("", top.lower()) in words} for words in (_TRAIN, _HELDOUT))
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
        below = ["/".join(part[1:] if len(part) > 1 else part) for part in parts]
        return Folders(heldout=heldout, group=_together(scenes(below, tops_of=parts)), clean=clean, noisy=noisy)
    if len(tops) < 2 or all(_NUMBERED.match(name) for name in names):
        return Folders(heldout=heldout, group=_named_pairs(names), notes=tuple(notes))
    labels, classes = from_names([part[0] if len(part) > 1 else None for part in parts])
    return Folders(labels, classes, heldout, notes=tuple(notes))


def _named_pairs(names: Sequence[str]) -> np.ndarray | None:
    """Scenes of files in one folder that say in their names which is clean and which noisy; None where most do not."""
    stems = [name.rpartition(".")[0].lower() for name in names]
    said = [_KIND.search(stem.split("/")[-1]) is not None for stem in stems]
    if sum(said) < len(names) / 2:
        return None
    short = ["/".join((*stem.split("/")[:-1], _KIND.sub("", stem.split("/")[-1]))) for stem in stems]
    pairs = Counter(short)
    return _together(short) if sum(n == 2 for n in pairs.values()) > len(pairs) / 2 else None
