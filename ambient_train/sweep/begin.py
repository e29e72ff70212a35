"""`ambient sweep init`: a grid to begin with, whose comments say what each entry is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.parsing import parse_toml
from ambient_theory.shared.plain_text import printable_line
from ambient_theory.shared.toml_text import toml_value
from ambient_train.data.builtin import BUILT_IN
from ambient_train.data.place import is_there
from ambient_train.settings.plan_options import GridStart
from ambient_train.settings.presets import default_preset, get_preset
from ambient_train.sweep.grid import parse_grid

_TEXT = """\
# Trainings that are compared. `ambient sweep plan {file}` says how long they take, `ambient sweep run {file}` runs
# them; cells that are done are skipped, so the grid may grow. Every setting: docs/options.md.
name = {name}
description = "What noisy images are worth beside clean ones"
seeds = {seeds}  # every cell is trained once a seed; two or more give error bars

[base]  # settings of every cell
data = {data}
preset = {preset}  # `ambient presets` lists them
{resolution}
{duration}
# max_images = 2000  # use fewer images
# score_at = "50k,100k"  # also score on the way
# evaluation = {{ n = 1000 }}  # images to generate for a score

# Every image clean: as good as it gets with so many images.
[[cell]]
name = "clean"
corruption = 0.0

# As many images, {percent} % of them noisy. A list of levels makes one cell for each.
[[cell]]
name = "mixture"
corruption = {corruption}
sigma = {sigma}

# The clean images of the mixture without its noisy ones: what it is better by is what the noisy ones are worth.
[[cell]]
name = "clean part alone"
keep = {keep}
corruption = 0.0

# Every image noisy; samples end at the noise of the data, below which nothing is learned.
# [[cell]]
# name = "noisy only"
# corruption = 1.0
# sigma = {first_sigma}
# evaluation = {{ sampler = {{ stop_sigma = {first_sigma} }} }}
"""


@dataclass(frozen=True)
class FirstGrid:
    """path: of the grid. cells: their names. trainings: cells times seeds. notes: what to look at."""

    path: Path
    cells: tuple[str, ...]
    trainings: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "ambient.sweep-init/1",
            "path": str(self.path),
            "cells": list(self.cells),
            "trainings": self.trainings,
            "notes": list(self.notes),
        }

    def show(self) -> None:
        print(printable_line(f"{self.path} written: {len(self.cells)} cells, {self.trainings} trainings"))


def write_first_grid(path: Path, start: GridStart) -> FirstGrid:
    """Write the grid. Raises UsageError for a path that is no free .toml and for settings that no training takes,
    DataError where its folder is missing."""
    if path.suffix.lower() != ".toml":
        raise UsageError(f"{path}: a grid is a TOML file: give a name that ends in .toml")
    if path.exists() and not start.overwrite:
        raise UsageError(f"{path} exists: give another name, or --overwrite")
    if not path.resolve().parent.is_dir():
        raise DataError(f"{path.parent}: no such directory")
    text = first_grid(path, start)
    grid = parse_grid(parse_toml(text), path)  # before anything there is replaced
    atomic_write_text(path, text)
    there = start.data.partition(":")[0] in BUILT_IN or is_there(start.data)
    notes = () if there else (f"{start.data} is not here: the trainings need it where they run",)
    return FirstGrid(path, grid.order, len(grid.cells), notes)


def first_grid(path: Path, start: GridStart) -> str:
    """The text of the grid."""
    preset = default_preset(start.data)
    side, duration = start.resolution, start.duration_nimg
    return _TEXT.format(
        file=printable_line(path.name),
        name=toml_value(printable_line(path.stem)),
        seeds=toml_value(list(range(start.seeds))),
        data=toml_value(start.data),
        preset=toml_value(preset),
        resolution="# resolution = 32  # area-resize to this side" if side is None else f"resolution = {side}",
        duration=f"# duration = {get_preset(preset).duration_nimg}  # images to train on: the preset's"
        if duration is None
        else f"duration = {duration}",
        percent=f"{100 * start.corruption:g}",
        corruption=toml_value(start.corruption),
        sigma=toml_value(list(start.sigma_n) if len(start.sigma_n) > 1 else start.sigma_n[0]),
        keep=toml_value(round(1 - start.corruption, 12)),
        first_sigma=toml_value(start.sigma_n[0]),
    )
