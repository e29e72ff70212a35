"""What a reader hands over: how many images there are, what is known of each, and a function that decodes some."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ambient_train.data.place import place

if TYPE_CHECKING:
    import numpy as np

    from ambient_train.data.formats.trees import Tree
    from ambient_train.data.values import ValueMap


@dataclass(frozen=True)
class ArrayFile:
    """One file of arrays that can be written again. write(path, restored): with other pixels [C, H, W] for some ids, in
    its own type and layout, without what states the noise."""

    name: str
    write: Callable[[Path, Mapping[int, np.ndarray]], None]


@dataclass(frozen=True, eq=False)
class Source:
    """A set of images that is not decoded yet.

    count: images in the full, sorted source; ids are 0 .. count - 1. read(ids) decodes those images to [m, C, H, W],
    uint8 or float32. labels int64 [count], sigma_n float32 [count] (noise already in the image, 0 = clean), or None.
    heldout: bool [count] where the source comes with a held-out part of its own. regions(share) -> (train, heldout)
    bool [count] each, where images overlap and a split by image would leak. group int64 [count]: images of one scene
    (clean and noisy) share the smallest of their ids, and are held out together.
    tree: the files, where images are files that may differ in size and mode. A label of -1 is unknown.
    classes: name of each label, in the order of the labels. notes: what was seen and not read, or changed on the way,
    one sentence each; nobody may learn of it later from a result. values: how the numbers of the files became pixels,
    None for the fixed map of 8 bits and for floats that are pixels already. pattern float32 [count, 1 or C, H, W],
    spectrum float32 [1 or C, H, W//2 + 1]: noise that is not white, as in `ImageSet`. question: what must be answered
    before the images can be used, in a sentence that says how; "" where nothing is open. file: the file of arrays that
    all images are in, None for others.
    """

    name: str
    count: int
    read: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray | None = None
    sigma_n: np.ndarray | None = None
    heldout: np.ndarray | None = None
    regions: Callable[[float], tuple[np.ndarray, np.ndarray]] | None = None
    group: np.ndarray | None = None
    default_holdout: float = 0.1
    classes: tuple[str, ...] | None = None
    tree: Tree | None = None
    notes: tuple[str, ...] = ()
    values: ValueMap | None = None
    pattern: np.ndarray | None = None
    spectrum: np.ndarray | None = None
    question: str = ""
    file: ArrayFile | None = None


def source_name(path: Path) -> str:
    """What a set read from `path` is called: the last part of the path, up to its first dot; never a path itself."""
    return path.resolve().name.split(".")[0].replace("\\", "-") or "images"


def prepare_command(spec: str, shape: Sequence[int], *, floats: bool = False) -> str:
    """The command that makes squares of the images of `spec`, none smaller than `shape` [..., H, W], as it is typed.

    The side is the largest power of two that fits. floats: of images that a .zip of pictures cannot hold.
    """
    side = 1 << (min(shape[-2:]).bit_length() - 1)
    made = f"{source_name(place(spec).path)}{side}{'.npz' if floats else '.zip'}"
    return shlex.join(["ambient", "data", "prepare", spec, made, "--resolution", str(side)])
