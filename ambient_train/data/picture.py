"""One picture of a set of images: clean and noisy ones, the histogram of values and of levels, what is read and not."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes
from ambient_train.data.images import to_pixels
from ambient_train.data.load import subset_ids
from ambient_train.data.noise import estimate_noise
from ambient_train.data.readers import open_source
from ambient_train.data.source import Source
from ambient_train.data.values import OF_FILES, UNIT, told_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, _LOOKED_AT, _BINS, _NOTES = 16, 512, 80, 12
NAMES = ("clean", "noisy")
_SCHEMA = "ambient.data-show/1"


@dataclass(frozen=True)
class Shown:
    """What is in the picture: where it is, images and how many of them are clean, noisy and held out, and the notes."""

    path: str
    source: str
    images: int
    clean: int
    noisy: int
    heldout: int | None
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": _SCHEMA, **self.__dict__, "unreadable": list(self.unreadable), "notes": list(self.notes)}


def show_source(spec: str, path: Path, *, overwrite: bool = False) -> Shown:
    """Draw a source as a PNG: up to 16 clean and 16 noisy images (noisiest last), histograms, and what was read.

    Images that cannot be read are named in it. Raises UsageError for a path that is no free .png, DataError where
    nothing can be read.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture is a PNG: give a name that ends in .png")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: give another name, or --overwrite")
    if not path.resolve().parent.is_dir():
        raise DataError(f"{path.parent}: no such directory")
    source = open_source(spec)
    sigma = np.zeros(source.count) if source.sigma_n is None else source.sigma_n
    every = np.arange(source.count, dtype=np.int64)
    parts, unreadable = [], []
    for wanted in (every[sigma == 0], every[sigma > 0]):
        ids, images, bad = _read(source, subset_ids(wanted, _LOOKED_AT // 2))
        parts.append((ids, images))
        unreadable += bad
    if not any(len(ids) for ids, _ in parts):
        raise DataError(f"{spec}: none of the images looked at can be read ({unreadable[0]})")
    notes = [*source.notes, *([source.question] if source.question else [])]
    if unreadable:
        notes.append(f"{len(unreadable):,} of the images looked at cannot be read, such as {unreadable[0]}")
    if source.tree is not None:
        notes += [
            f"{n:,} of the images looked at: {what}" for what, n in Counter(source.tree.converted.values()).items()
        ]
    noisy = int((sigma > 0).sum())
    heldout = None if source.heldout is None else int(source.heldout.sum())
    shown = Shown(str(path), spec, source.count, source.count - noisy, noisy, heldout, tuple(unreadable), tuple(notes))
    from ambient_theory.shared.plotting import styled, to_bytes

    with styled():
        figure = _draw(shown, source, parts, sigma)
    atomic_write_bytes(path, to_bytes(figure)["png"])
    return shown


def _read(source: Source, ids: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """(ids, pixels [C, H, W] of those that can be read, what is wrong with the others)."""
    good, images, bad = [], [], []
    for index in ids:
        try:
            if source.tree is not None:
                image, _ = source.tree.decode(int(index))
            else:
                image = source.read(np.array([index]))[0]
        except DataError as error:
            bad.append(str(error))
            continue
        good.append(int(index))
        images.append(to_pixels(image[None])[0])
    return np.array(good, np.int64), images, bad


def _draw(
    shown: Shown, source: Source, parts: Sequence[tuple[np.ndarray, list[np.ndarray]]], sigma: np.ndarray
) -> Figure:
    from ambient_theory.shared.palette import BLUE, ORANGE
    from ambient_theory.shared.plotting import new_figure

    unit, told = told_in(source.values)
    kinds = [k for k, (ids, _) in enumerate(parts) if len(ids)]
    text = _words(shown, source)
    heights = [2.3] * len(kinds) + [2.9, 0.4 + 0.15 * (text.count("\n") + 1)]
    figure = new_figure(9.2, sum(heights))
    rows: Any = figure.subfigures(len(kinds) + 2, 1, height_ratios=heights)
    for k, place in zip(kinds, rows, strict=False):
        ids, images = parts[k]
        order = np.argsort(sigma[ids], kind="stable") if k else np.arange(len(ids))
        chosen = order[np.unique(np.linspace(0, len(ids) - 1, min(SHOWN, len(ids))).round().astype(int))]
        _tiles(place, [images[i] for i in chosen], [float(sigma[ids[i]]) * unit for i in chosen] if k else None)
        name = NAMES[k] if k or source.sigma_n is not None else "counted as clean"
        place.suptitle(f"{name}: {(shown.clean, shown.noisy)[k]:,} images", x=0.01, ha="left")
    left, right = rows[-2].subplots(1, 2)
    for k in kinds:
        values = np.concatenate([image.reshape(-1) for image in parts[k][1]])
        counts, edges = np.histogram(values if source.values is None else source.values.to_values(values), _BINS)
        left.stairs(counts / len(values), edges, color=(BLUE, ORANGE)[k], label=NAMES[k], linewidth=1.4)
    left.set(title="values", xlabel=UNIT if source.values is None else OF_FILES, ylabel="share of pixels", yscale="log")
    left.locator_params(axis="x", nbins=6)  # more would touch each other
    left.legend()
    if shown.noisy:
        levels, what = sigma[sigma > 0] * unit, "stated noise levels of noisy images"
    else:
        seen = [float(estimate_noise(image[None].astype(np.float64))[0]) for _, images in parts for image in images]
        levels, what = np.array(seen) * unit, "level of fine detail (none is stated)"
    levels = levels[np.isfinite(levels)]
    if len(levels):
        right.hist(levels, bins=min(20, max(5, len(np.unique(levels)))), color=ORANGE)
    right.set(title=what, xlabel=told, ylabel="images")
    axes = rows[-1].subplots()
    axes.set_axis_off()
    axes.text(0, 1, text, transform=axes.transAxes, va="top", fontsize=7.5, parse_math=False)
    return figure


def _tiles(place: Any, images: Sequence[np.ndarray], levels: Sequence[float] | None) -> None:
    axes = np.atleast_1d(np.asarray(place.subplots(2, SHOWN // 2))).reshape(-1)
    for ax in axes:
        ax.set_axis_off()
    for k, (ax, image) in enumerate(zip(axes, images, strict=False)):
        pixels = np.clip((image.transpose(1, 2, 0) + 1) / 2, 0, 1)
        if image.shape[0] < 3:  # grey, or the real part of complex values
            ax.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        else:
            ax.imshow(pixels, interpolation="nearest")
        if levels is not None:
            ax.set_title(f"{levels[k]:.3g}", fontsize=7, fontweight="normal", loc="center", pad=2)


def _words(shown: Shown, source: Source) -> str:
    """What was read and what not, in lines."""
    held = "" if shown.heldout is None else f", {shown.heldout:,} of them held out"
    labels = "no labels" if source.labels is None else f"{len(np.unique(source.labels[source.labels >= 0])):,} classes"
    lines = [f"{source.name}: {shown.images:,} images{held}; {labels}", *(f"- {note}" for note in shown.notes[:_NOTES])]
    if len(shown.notes) > _NOTES:
        lines.append(f"- and {len(shown.notes) - _NOTES} more notes")
    return "\n".join("\n".join(textwrap.wrap(line, 150, subsequent_indent="  ")) for line in lines)
