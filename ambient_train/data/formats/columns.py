"""Names under which people keep noise levels, labels and file names: of tables, of their columns, of arrays.

Standard library only, so that the help of a command can quote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TABLE_STEMS = ("dataset", "labels", "metadata")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
JSON_NAME, SIGMA_NAME, PARTITION_NAME = "dataset.json", "sigma.npy", "list_eval_partition.txt"
FILE_COLUMNS = (
    *("file", "filename", "file_name", "image", "image_id", "path", "name"),
    *("image_name", "image_path", "file_path", "filepath", "fname", "img", "id"),
)
LABEL_COLUMNS = ("label", "class", "class_id", "target", "category", "class_name")
SIGMA_COLUMNS = (
    *("sigma", "sigma_n", "sigmas", "noise_sigma", "sigma_noise", "noise_std", "noise_level", "noise_levels"),
    *("noise_stddev", "noise_sd", "noise", "std", "stddev", "sd"),
)
SIGMA_ARRAYS = tuple(name for name in SIGMA_COLUMNS if "_" in name or "sigma" in name)  # `std` alone may be of the data


def plain(name: str) -> str:
    """A name without what people vary in writing it: `Noise STD` and `noise-std` are `noise_std`."""
    return name.strip().strip("\ufeff").lower().replace(" ", "_").replace("-", "_")


def pick(names: Iterable[str], choices: Sequence[str]) -> str | None:
    """The one of `names` that stands first among `choices`, in any way of writing it."""
    found = {plain(name): name for name in reversed(list(names))}
    return next((found[choice] for choice in choices if choice in found), None)


def is_table_name(name: str) -> bool:
    """Whether a file (its name alone) is a table that is read by its name, in any case of letters."""
    stem, dot, suffix = name.lower().rpartition(".")
    return stem in TABLE_STEMS and dot + suffix in TABLE_SUFFIXES
