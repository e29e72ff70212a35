"""Files that lie among the images and are not read: counted by kind, with what reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

_TOOLS = {
    **dict.fromkeys((".dcm", ".dicom"), "pydicom"),
    **dict.fromkeys((".heic", ".heif"), "pillow-heif"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".avif"), "Pillow"),
    **dict.fromkeys((".raw", ".dng", ".cr2", ".nef", ".arw"), "rawpy"),
    **dict.fromkeys((".czi", ".lif", ".nd2", ".vsi"), "aicsimageio"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv"), "ffmpeg"),
    **dict.fromkeys((".npy", ".npz"), "NumPy"),
    ".mat": "scipy.io",
    ".exr": "OpenEXR",
    ".mrc": "mrcfile",
}
_ALONE = {
    **dict.fromkeys((".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fit.fz", ".fz"), "FITS"),
    **dict.fromkeys((".nii", ".nii.gz"), "NIfTI"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5"), "HDF5"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}
"""Kinds that are read, but not in one set with others."""
_SILENT_STEMS = ("readme", "license", "licence", "citation", "thumbs", "desktop", "checksums")
_SHOWN = 8


def suffix(name: str) -> str:
    """Lower-case ending of a file's name, `.nii.gz` and `.fits.fz` as one; "" without one."""
    stem, ending = os.path.splitext(name.rsplit("/", 1)[-1].lower())
    if ending in (".gz", ".fz"):
        ending = os.path.splitext(stem)[1] + ending
    return ending


def describes(name: str) -> bool:
    """Whether a file only describes the set (README, LICENSE): nobody misses it."""
    return name.rsplit("/", 1)[-1].lower().startswith(_SILENT_STEMS)


def passed_over(names: Iterable[str]) -> tuple[str, ...]:
    """One sentence on files that are not read, or none; those that only describe the set are not counted."""
    kinds = Counter(suffix(name) or "without an ending" for name in names if not describes(name))
    total = sum(kinds.values())
    if not total:
        return ()
    parts = [
        f"{count:,} {kind}"
        + (f" (for {_TOOLS[kind]})" if kind in _TOOLS else " (read where it lies alone)" if kind in _ALONE else "")
        for kind, count in kinds.most_common(_SHOWN)
    ]
    more = sum(kinds.values()) - sum(count for _, count in kinds.most_common(_SHOWN))
    parts += [f"{more:,} others"] * bool(more)
    how = ""
    if any(kind in _TOOLS for kind in kinds):
        how = "; to use them write PNGs, or one .npz with `images` (floats in units of [-1, 1])"
    if alone := sorted({_ALONE[kind] for kind in kinds if kind in _ALONE}):
        how += f"; give {', '.join(alone)} by their own path, or in a folder of their own"
    return (f"{total:,} file{'s are' if total > 1 else ' is'} not read: {', '.join(parts)}{how}",)
