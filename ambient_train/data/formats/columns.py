"""Names under which people keep noise levels, labels and file names: of tables, of their columns, of arrays.

Standard library only, so that the help of a command can quote them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

TABLE_STEMS = ("dataset", "labels", "metadata")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
JSON_NAME, SIGMA_NAME, PARTITION_NAME = "dataset.json", "sigma.npy", "list_eval_partition.txt"
FILE_COLUMNS = (
    *("file", "filename", "file_name", "image", "image_id", "path", "name"),
    *("image_name", "image_path", "file_path", "filepath", "fname", "img", "id"),
)
LABEL_COLUMNS = ("label", "class", "class_id", "target", "category", "class_name")
DEVIATION, VARIANCE, INVERSE = "standard deviation", "variance", "inverse variance"
"""What a name says of the noise. The inverse variance of a pixel is its weight."""
ANY, EACH, MAP, LEVEL = range(4)
"""How many numbers an array needs, so that its name means noise: any; one an image or a pixel (a single `std` may be of
the data); one a pixel (`weights` of images are none of noise); one an image (a map called `noise` may be the noise)."""
NOISE_NAMES: dict[str, tuple[str, int]] = {
    name: (what, needs)
    for what, needs, names in (
        (DEVIATION, ANY, "sigma sigma_n sigmas noise_sigma sigma_noise noise_std noise_level noise_levels"),
        (DEVIATION, ANY, "noise_stddev noise_sd sigma_map noise_map"),
        (VARIANCE, ANY, "noise_var noise_variance sigma2 varmap variance_map"),
        (INVERSE, ANY, "ivar invvar inv_var inverse_variance invvariance"),
        (DEVIATION, EACH, "std stddev sd"),
        (DEVIATION, LEVEL, "noise"),
        (VARIANCE, EACH, "var variance"),
        (DEVIATION, MAP, "err error uncert uncertainty rms"),
        (VARIANCE, MAP, "stat"),
        (INVERSE, MAP, "wht weight weights"),
    )
    for name in names.split()
}
"""Names of noise, in every kind of file, in the order in which they count: what each says, and how many numbers it
needs. Columns of tables, arrays (.npz, HDF5), extensions (FITS) and `<stem>.NAME.npy` are read by this one table."""
SIGMA_COLUMNS = tuple(name for name, (_, needs) in NOISE_NAMES.items() if needs != MAP)


def plain(name: str) -> str:
    """A name without what people vary in writing it: `Noise STD` and `noise-std` are `noise_std`."""
    return name.strip().strip("\ufeff").lower().replace(" ", "_").replace("-", "_")


def pick(names: Iterable[str], choices: Sequence[str]) -> str | None:
    """The one of `names` that stands first among `choices`, in any way of writing it."""
    found = {plain(name): name for name in reversed(list(names))}
    return next((found[choice] for choice in choices if choice in found), None)


def pick_noise(shapes: Mapping[str, Sequence[int]], images: Sequence[int]) -> str | None:
    """The one of some arrays, by name and shape, that states the noise of images of shape `images` (N, C, H, W)."""
    count, pixels = images[0], tuple(images[2:])
    for choice, (_, needs) in NOISE_NAMES.items():
        for name, shape in shapes.items():
            if plain(name) != choice:
                continue
            is_map = len(shape) > 2 and shape[0] == count and pixels in (tuple(shape[-2:]), tuple(shape[1:3]))
            of_each = len(shape) > 0 and shape[0] == count and math.prod(shape) == count > 1
            if needs == ANY or (needs in (EACH, MAP) and is_map) or (needs in (EACH, LEVEL) and of_each):
                return name
    return None


def is_table_name(name: str) -> bool:
    """Whether a file (its name alone) is a table that is read by its name, in any case of letters."""
    stem, dot, suffix = name.lower().rpartition(".")
    return stem in TABLE_STEMS and dot + suffix in TABLE_SUFFIXES
