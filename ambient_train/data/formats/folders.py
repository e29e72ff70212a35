"""What the folders of a tree say: classes, a held-out part, or kinds of noise, which are no classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
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
_BETTER = _CLEAN | frozenset(
    (
        *("target", "targets", "label", "labels", "ref", "sharp", "denoised", "restored", "hr", "hq"),
        *("highres", "high_res", "high_resolution", "high_quality"),
    )
)
_WORSE = re.compile(
    r"(input|raw|lr|lq|low_?res|low_?resolution|low_?quality|noisy|noise|noised|degraded|corrupted|distorted)s?([_=x-]?\d+)?"
)
_PAIRS = (
    *(("low", "high"), ("low", "normal"), ("dark", "normal"), ("dark", "bright"), ("short", "long")),
    *(("blur", "sharp"), ("blurred", "sharp"), ("blurry", "sharp"), ("hazy", "clear"), ("rain", "norain")),
    *(("rainy", "clean"), ("input", "output"), ("source", "target"), ("before", "after"), ("compressed", "raw")),
)
"""Two versions of one scene: those words are classes elsewhere, so that the same names in both have to say it, too."""
_AROUND = re.compile(
    r"^(\w+_)?(images?|imgs?|train|test|valid|val)[_ .-]+|[_ .-]+(images?|imgs?|data|frames?|patches|x\d|bicubic)$"
)
"""What stands beside such a word, as in `noisy_images`."""
_SAME = 0.8
_WORD = (
    r"(?:noisy|noise|noised|sigma|std|degraded|corrupted|clean|gt|ground_?truth|original|reference|input|target|lr|hr"
    r"|lq|hq|low|high|raw|short|long|blur|sharp|source|output)(?:[=-]?\d+)?"
)
_KIND = re.compile(rf"(?:^{_WORD}[_ .-]+|[_ .-]+{_WORD}(?=$|[_ .-]))")
_SMALLER = re.compile(r"(?<=\d)x[2348]$")
_NUMBERED = re.compile(r"^(\d{5}/)?img\d{8}\.\w+$")


@dataclass(frozen=True, eq=False)
class Folders:
    """labels int64 [N] (-1 = unknown) with their classes; heldout bool [N]; group int64 [N]: images of one scene, as
    its clean and its noisy version, share a number. Each None where the folders say nothing of it. clean, noisy: names
    of folders that are kinds of noise, or versions of one scene. may_be_classes: whether such names are classes
    elsewhere.
    """

    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    heldout: np.ndarray | None = None
    group: np.ndarray | None = None
    clean: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    may_be_classes: bool = False


def _bare(stem: str) -> str:
    """A name without the word for its noise, and without the factor by which it is smaller (`0001x4`)."""
    return _SMALLER.sub("", _KIND.sub("", stem.lower()))


def scenes(names: Sequence[str], tops_of: Sequence[Sequence[str]]) -> list[str]:
    """What each image shows, from its name without ending and without the word for its noise: `001_noisy` is `001`.

    Names keep such words where two images of one folder (`tops_of`, the parts of their paths) would be one scene.
    """
    stems = [name.rpartition(".")[0] for name in names]
    short = ["/".join((*stem.split("/")[:-1], _bare(stem.split("/")[-1]))) for stem in stems]
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
    00000/img00000000.png), and where all are kinds of noise (clean/, noisy/, sigma25/) or versions of one scene
    (input/, target/), at the top or below classes.
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
    kinds = _kinds(parts)
    tops = {part[0] for part in parts if len(part) > 1}
    labels, classes = None, None
    if len(tops) > 1 and not all(_NUMBERED.match(name) for name in names) and (kinds is None or kinds.depth):
        labels, classes = from_names([part[0] if len(part) > 1 else None for part in parts])
    if kinds is None:
        apart = _apart(tops)
        return Folders(labels, classes, heldout, _named_pairs(names), notes=(*notes, *apart))
    below = ["/".join((*part[: kinds.depth], *part[kinds.depth + 1 :])) if len(part) > 1 else part[0] for part in parts]
    group = _together(scenes(below, tops_of=[part[kinds.depth :] for part in parts]))
    cut = len(names[0].split("/")) - len(parts[0])
    folders = sorted({"/".join(name.split("/")[: cut + kinds.depth + 1]) for name in names if name.count("/") > cut})
    clean, noisy = (tuple(f for f in folders if f.split("/")[-1] in words) for words in (kinds.clean, kinds.noisy))
    return Folders(labels, classes, heldout, group, clean, noisy, tuple(notes), kinds.may_be_classes)


@dataclass(frozen=True)
class _Kinds:
    """Folders that are versions of one scene: at which depth, and the names of the better and of the worse."""

    depth: int
    clean: frozenset[str]
    noisy: frozenset[str]
    may_be_classes: bool = False


def _core(folder: str) -> str:
    """The word in the name of a folder: `noisy_images` is `noisy`."""
    word, before = folder.lower().replace("-", "_"), ""
    while word != before:
        word, before = _AROUND.sub("", word), word
    return word


def _kinds(parts: Sequence[Sequence[str]]) -> _Kinds | None:
    """The folders at one depth, if all of them there are kinds of noise, or better and worse versions of one scene."""
    for depth in range(max(1, min(map(len, parts)) - 1)):
        found = {part[depth] for part in parts if len(part) > depth + 1}
        noisy = frozenset(name for name in found if _NOISY.fullmatch(name.lower()))
        clean = frozenset(name for name in found if name.lower().replace("-", "_") in _CLEAN)
        if noisy and found == noisy | clean:
            return _Kinds(depth, clean, noisy)
        worse = frozenset(name for name in found if _WORSE.fullmatch(_core(name))) | noisy
        better = frozenset(name for name in found if _core(name) in _BETTER)
        if worse and better and found == worse | better:
            return _Kinds(depth, better - worse, worse)
        pair = _pair(found)
        if pair is not None:
            low, high = pair
            of_each = [
                {"/".join((*part[:depth], *part[depth + 1 :])) for part in parts if part[depth : depth + 1] == [name]}
                for name in pair
            ]
            shown = [set(scenes(sorted(of), [name.split("/") for name in sorted(of)])) for of in of_each]
            if len(shown[0] & shown[1]) >= _SAME * min(map(len, shown)):
                return _Kinds(depth, frozenset((high,)), frozenset((low,)), may_be_classes=True)
    return None


def _pair(folders: Collection[str]) -> tuple[str, str] | None:
    """Two folders that may be (worse, better) versions of one scene, or classes."""
    by_word = {_core(folder): folder for folder in folders}
    for pair in _PAIRS:
        if len(folders) == 2 and by_word.keys() == set(pair):
            return by_word[pair[0]], by_word[pair[1]]
    return None


def _apart(tops: Collection[str]) -> tuple[str, ...]:
    """A sentence on folders that are taken as classes where they might be worse and better versions of other images."""
    pair = _pair(tops)
    if pair is None:
        return ()
    return (
        f"{pair[0]}/ and {pair[1]}/ are taken as classes, since they share hardly any name; if one holds noisy images, "
        f"state the levels in a dataset.csv with a header `file,sigma`, as in `{pair[0]},0.2` and `{pair[1]},0`",
    )


def _named_pairs(names: Sequence[str]) -> np.ndarray | None:
    """Scenes of files in one folder that say in their names which is clean and which noisy; None where most do not."""
    stems = [name.rpartition(".")[0].lower() for name in names]
    said = [_KIND.search(stem.split("/")[-1]) is not None for stem in stems]
    if sum(said) < len(names) / 2:
        return None
    short = ["/".join((*stem.split("/")[:-1], _KIND.sub("", stem.split("/")[-1]))) for stem in stems]
    pairs = Counter(short)
    return _together(short) if sum(n == 2 for n in pairs.values()) > len(pairs) / 2 else None
