"""Grid files: independent cells of a sweep, parsed and checked; nothing is loaded or run here.

A grid is TOML: `[base]` settings for every cell (see `settings.layers`), `[[cell]]` tables with a `name` and settings
that differ, and `seeds`. The tables `evaluation` and `network` of a cell are merged with those of `[base]`. A
list-valued `sigma` in a cell makes one cell for each. `STATED` settings describe data that may not be at hand.
`distill = "NAME"` in a cell distills the cell of that name above it (of the same sigma), seed by seed: its settings
are that cell's, but for how the second stage is optimised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.toml_text import toml_lines
from ambient_train.settings.layers import TrainSettings, check_idle, read_toml, settings_from
from ambient_train.settings.merging import merged
from ambient_train.settings.second_stage import inherited

STATED = ("n_images", "img_channels", "img_resolution", "n_classes", "data_from")
"""Of the data of a cell: training images, colours (default 3), side in pixels, classes; where to get it, in words."""


@dataclass(frozen=True)
class SweepCell:
    """One training of a grid: name (of the regime and noise), seed, what is asked, `STATED` keys.

    teacher: the cell that this one distills; `settings` then do not yet name its run.
    """

    name: str
    seed: int
    settings: TrainSettings
    stated: Mapping[str, Any] = field(default_factory=dict)
    teacher: SweepCell | None = None

    @property
    def label(self) -> str:
        return f"{self.name} seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """A parsed grid file. order: cell names in the order of the file."""

    name: str
    description: str
    cells: tuple[SweepCell, ...]
    order: tuple[str, ...]


def read_grid(path: Path) -> Grid:
    """Parse and expand a grid. Raises DataError for an unreadable file, UsageError for a wrong entry or setting."""
    return parse_grid(read_toml(path), path)


def parse_grid(table: Mapping[str, Any], path: Path) -> Grid:
    """Expand what is in the file at `path`. Raises UsageError for a wrong entry or setting."""
    if unknown := sorted(set(table) - {"name", "description", "seeds", "base", "cell"}):
        raise UsageError(f"{path}: unknown entry {', '.join(unknown)}: known are name, description, seeds, base, cell")
    cells = table.get("cell")
    if not isinstance(cells, list) or not cells:
        raise UsageError(f"{path}: no [[cell]]: a grid needs at least one")
    seeds = _seeds(table.get("seeds", [0]), path)
    base = table.get("base", {})
    out: list[SweepCell] = []
    order: list[str] = []
    asked: dict[str, dict[str, Any]] = {}
    if not isinstance(base, Mapping):
        raise UsageError(f"{path}: [base] must be a table of settings, not {base!r}")
    for entry in cells:
        if not isinstance(entry, Mapping):
            raise UsageError(f"{path}: every [[cell]] must be a table of settings, not {entry!r}")
        entry = dict(entry)
        name = entry.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"{path}: every [[cell]] needs a name")
        if not name.isprintable():
            raise UsageError(f"{path}: the name of a cell is one line of printable characters, not {name!r}")
        own_seeds = _seeds(entry.pop("seeds", seeds), path)
        distilled = entry.pop("distill", None)
        sigma = entry.get("sigma")
        levels = sigma if isinstance(sigma, list) else [sigma]
        if any(isinstance(x, bool) or not isinstance(x, int | float | None) for x in levels):
            raise UsageError(f"{path}: cell {name!r}: sigma must be a number or a list of numbers, not {sigma!r}")
        for level in levels:
            below, teacher = base, ""
            if distilled is not None:
                teacher = _teacher(distilled, level, order, f"{path}: cell {name!r}")
                below = inherited(asked[teacher])
            label = f"{name} sigma {level:g}" if isinstance(sigma, list) else name
            with _said_of(path, label):
                settings = merged(below, {**entry, **({} if level is None else {"sigma": level})})
            stated = {key: settings.pop(key) for key in STATED if key in settings}
            if label in order:
                raise UsageError(f"{path}: two cells are called {label!r}")
            order.append(label)
            asked[label] = {**settings, **stated}
            for seed in own_seeds:
                first = None
                if teacher:
                    own = {k: v for k, v in asked[teacher].items() if k not in STATED}
                    first = SweepCell(teacher, seed, _settings(own, seed, path, teacher), stated)
                made = _settings(settings, seed, path, label, distilled=first is not None, own=entry)
                out.append(SweepCell(label, seed, made, stated, first))
    out.sort(key=lambda cell: cell.seed)  # whole replicates first: an interrupted sweep has every cell of some seeds
    return Grid(str(table.get("name", path.stem)), str(table.get("description", "")), tuple(out), tuple(order))


def _seeds(value: Any, path: Path) -> list[int]:
    if not isinstance(value, list) or not value or any(isinstance(s, bool) or not isinstance(s, int) for s in value):
        raise UsageError(f"{path}: seeds must be a list of whole numbers, not {value!r}")
    return value


def _teacher(name: Any, level: float | None, order: list[str], where: str) -> str:
    """The label of the cell that is distilled. Raises UsageError where no cell above has it."""
    candidates = [str(name)] if level is None else [f"{name} sigma {level:g}", str(name)]
    for label in candidates:
        if label in order:
            return label
    raise UsageError(f"{where}: distill names {candidates[0]!r}, and no cell above it is called so")


def _settings(
    settings: Mapping[str, Any],
    seed: int,
    path: Path,
    label: str,
    *,
    distilled: bool = False,
    own: Mapping[str, Any] = MappingProxyType({}),
) -> TrainSettings:
    with _said_of(path, label):
        made = settings_from({**settings, "seed": seed}, distilled=distilled)
        check_idle(own, made)
    return made


@contextlib.contextmanager
def _said_of(path: Path, label: str) -> Iterator[None]:
    """A UsageError in the block begins with the cell that it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: cell {label!r}: {error}") from None


def write_grid(path: Path, table: Mapping[str, Any]) -> None:
    """Write a grid that `read_grid` reads, from what is in its file: see `grid_text`."""
    atomic_write_text(path, grid_text(table))


def grid_text(table: Mapping[str, Any]) -> str:
    """The file of a grid from its entries: name, description, seeds, base, cell."""
    top = {k: v for k, v in table.items() if k not in ("base", "cell")}
    parts = [toml_lines(top), "[base]\n" + toml_lines(table.get("base", {}))]
    parts += ["[[cell]]\n" + toml_lines(entry) for entry in table["cell"]]
    return "\n".join(parts)
