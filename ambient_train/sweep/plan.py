"""What a grid would do: cells, images, parameters, time; also where its data is not on this machine.

Where the data is here, time is measured on this machine. Published grids state the size of their data in `[base]`
(`n_images`, `img_channels`, `img_resolution`, `n_classes`), so that they can be planned without it; their time is then
that of a published run of the same network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.plain_text import duration_text
from ambient_train.data.load import ImageSet
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.runs.precision import absent as absent_here
from ambient_train.runs.resolve import Job, resolve
from ambient_train.runs.scoring_work import SHARE, scoring_work
from ambient_train.sweep.grid import SweepCell, read_grid
from ambient_train.sweep.pool import resolve_cell
from ambient_train.tasks.show import short
from ambient_train.training.batches import relative_cost
from ambient_train.training.cost import StepCost, count_parameters, measure, reference_time
from ambient_train.training.world import choose_device


@dataclass(frozen=True)
class PlanRow:
    """One cell with all its seeds. data: `here`, or `stated` where only its size is known. hours: of one device of
    this machine, None where it was not measured; scoring_share: how much of them its scores take at most.
    reference_gpu_hours: from a published time, None where none fits."""

    cell: str
    seeds: int
    n_clean: int
    n_noisy: int
    sigma_n: float
    train_nimg: int
    generate_nimg: int
    parameters: int
    data: str
    hours: float | None
    scoring_share: float | None
    reference_gpu_hours: float | None


@dataclass(frozen=True)
class Plan:
    """What a grid would do. unit: what `hours` are hours of. reference: where `reference_gpu_hours` come from.

    notes: sentences on what could not be measured.
    """

    grid: str
    rows: list[PlanRow]
    unit: str
    reference: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        return {
            "grid": self.grid,
            "unit": self.unit,
            "reference": self.reference,
            "notes": self.notes,
            "cells": [asdict(r) for r in self.rows],
        }

    def show(self) -> None:
        from ambient_theory.shared.wide_tables import print_table

        columns: dict[str, Callable[[PlanRow], str]] = {
            "cell": lambda r: r.cell,
            "seeds": lambda r: str(r.seeds),
            "clean": lambda r: f"{r.n_clean:,}" if r.n_clean < 100_000 else short(r.n_clean),
            "noisy": lambda r: f"{r.n_noisy:,}" if r.n_noisy < 100_000 else short(r.n_noisy),
            "sigma": lambda r: f"{r.sigma_n:g}",
            "train": lambda r: short(r.train_nimg),
            "sample": lambda r: short(r.generate_nimg),
            "weights": lambda r: short(r.parameters),
        }
        if any(r.hours is not None for r in self.rows):
            columns["time here"] = lambda r: "?" if r.hours is None else duration_text(r.hours * 3600)
            columns["scores"] = lambda r: "?" if r.scoring_share is None else f"{r.scoring_share:.0%}"
        if self.reference:
            columns["GPU h"] = lambda r: "?" if r.reference_gpu_hours is None else f"{r.reference_gpu_hours:,.0f}"
        rows = [[value(r) for value in columns.values()] for r in self.rows]
        print_table(f"Trainings of {self.grid}", list(columns), rows, keys=1, right=range(1, len(columns)))
        total = f"{sum(r.seeds for r in self.rows)} trainings"
        if all(r.hours is not None for r in self.rows):
            total += f", {duration_text(sum(r.hours or 0.0 for r in self.rows) * 3600)} of {self.unit}"
        if self.reference and all(r.reference_gpu_hours is not None for r in self.rows):
            total += f", about {sum(r.reference_gpu_hours or 0.0 for r in self.rows):,.0f} GPU-hours"
        print(total)
        if self.reference:
            print(f"GPU-hours from: {self.reference}")
        for note in self.notes:
            print(note)


class _StatedImages(ImageSet):
    """Images of which only the number and the shape are known; there is no content to hash."""

    @property
    def content_hash(self) -> str:
        return ""


def stated_images(name: str, stated: Mapping[str, Any]) -> ImageSet:
    """A stand-in without pixels (every image is the same zero byte) of the size that a grid states.

    Raises UsageError unless n_images, img_channels (default 3) and img_resolution are whole numbers that make sense.
    """
    values = {"img_channels": 3, "n_classes": 0, **{k: v for k, v in stated.items() if k != "data_from"}}
    for key, lowest in (("n_images", 1), ("img_channels", 1), ("img_resolution", 2), ("n_classes", 0)):
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise UsageError(f"{key} must be a whole number >= {lowest} to plan without the data, not {value!r}")
    count, side = values["n_images"], values["img_resolution"]
    pixels = np.broadcast_to(np.zeros(1, np.uint8), (count, values["img_channels"], side, side))
    ids = np.arange(count, dtype=np.int64)
    return _StatedImages(name, pixels, ids % values["n_classes"] if values["n_classes"] else None, ids)


def resolve_for_plan(cell: SweepCell) -> tuple[Job, str]:
    """The cell's job, and `` or the reason why it was resolved from stated sizes. Raises as `resolve_cell` does."""
    try:
        return resolve_cell(cell), ""
    except DataError as error:
        if "n_images" not in cell.stated:
            raise
        reason = str(error)

    def load(data: str, resolution: int | None, holdout: float | None, max_images: int | None) -> ImageSet:
        images = stated_images(Path(data).name.split(".")[0], cell.stated)
        return images if max_images is None else images.subset(slice(max_images))

    return resolve(cell.settings, load=load), reason


def plan_grid(path: Path) -> Plan:
    """Resolve every cell, time each distinct network on this machine where the data is here, and add up."""
    grid = read_grid(path)
    device = choose_device("auto")
    costs: dict[str, StepCost] = {}
    sizes: dict[str, int] = {}
    seeds = Counter(c.name for c in grid.cells)
    rows, notes, sources = [], [], []
    for name in grid.order:
        cell = next(c for c in grid.cells if c.name == name)
        job, absent = resolve_for_plan(cell)
        source, schedule = job.source, job.schedule
        config = job.config if cell.teacher is None else replace(job.config, distill=cell.teacher.name)
        one_thread_for_small(config.arch, device)
        if absent or (absent := absent_here(config.precision, device)):
            notes.append(f"not measured here: {absent}")
        work = scoring_work(job, clean=job.evaluation.denoise if isinstance(source, _StatedImages) else None)
        hours = share = None
        alike = (config.arch, dict(config.network), job.shape, job.label_dim)
        key = str((*alike, config.batch, config.precision, config.augment, config.optimizer))
        if key not in sizes:
            sizes[key] = count_parameters(config, job.shape, job.label_dim)
        if not absent:
            if key not in costs:
                costs[key] = measure(config, job.training_set(), job.label_dim, device)
            seconds = schedule.duration_nimg / costs[key].rate(config)
            hours = (seconds + work.evaluations / costs[key].evaluations_per_s) * seeds[name] / 3600
            share = work.share(seconds, costs[key].evaluations_per_s)
        published, reference = reference_time(config, source.resolution), None
        if published:
            reference = published.hours(schedule.duration_nimg * relative_cost(config), work.evaluations) * seeds[name]
            sources.append(f"{published.source} ({published.gpu}-hours)")
        rows.append(
            PlanRow(
                name,
                seeds[name],
                config.n_clean,
                config.n_noisy,
                config.sigma_n if config.n_noisy else 0.0,
                schedule.duration_nimg * seeds[name],
                work.generated * seeds[name],
                sizes[key],
                "stated" if isinstance(source, _StatedImages) else "here",
                hours,
                share,
                reference,
            )
        )
    if (most := max((r.scoring_share or 0.0 for r in rows), default=0.0)) > 2 * SHARE:
        notes.append(
            f"scores take up to {most:.0%} of a training's time: a smaller `n` or `denoise`, or "
            '`generate_at = "end"`, in `evaluation` shortens them'
        )
    unit = "one GPU of this machine" if device.type == "cuda" else "one CPU thread of this machine"
    return Plan(grid.name, rows, unit, "; ".join(dict.fromkeys(sources)), list(dict.fromkeys(notes)))
