"""`ambient sweep plan GRID --target price`: of the cells of a grid, which to train next, and as which seeds.

The grid says what may be trained (its cells) and how (its settings); records say what is known: those of the grid's
finished cells, and others that are given. What is chosen is written as a grid with the same settings.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.advice import Advice, Adviser, Mixture
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.limits import read_text
from ambient_theory.shared.reading import read
from ambient_theory.shared.records import Record
from ambient_train.settings.layers import read_toml
from ambient_train.sweep.grid import Grid, SweepCell, grid_text, read_grid
from ambient_train.sweep.pool import cell_state, resolve_cell, run_cell


@dataclass(frozen=True)
class NextCells:
    """What to train next, and the grid that holds it. seeds: of each step, in order."""

    advice: Advice
    sigma_n: float
    seeds: tuple[int, ...]
    records: int
    grid: Path | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "ambient.next-cells/1",
            "sigma": self.sigma_n,
            "records": self.records,
            "grid": None if self.grid is None else str(self.grid),
            **self.advice.to_dict(),
            "seeds": list(self.seeds),
        }

    def show(self) -> None:
        from ambient_theory.shared.wide_tables import print_table

        print(f"{self.records:,} records; {self.advice.sentence}")
        if self.advice.factor is not None:
            print(f"predicted interval of the price now: {factor_text(self.advice.factor)}")
        rows = []
        for k, (step, seed) in enumerate(zip(self.advice.steps, self.seeds, strict=True), 1):
            m = step.mixture
            numbers = [str(k), f"{m.n_clean:,}", f"{m.n_noisy:,}", str(seed)]
            rows.append([*numbers, step.why, factor_text(step.factor)])
        print_table("What to train next", ["", "clean", "noisy", "seed", "why", "then predicted"], rows, right=range(4))
        print(f"ambient sweep run {self.grid}" if self.grid else "no cell is left that would help")


def factor_text(factor: float | None) -> str:
    """The ratio of the ends of an interval in words."""
    if factor is None:
        return "not known"
    return f"factor {factor:.3g}" if factor < 100 else "wider than a factor of 100"


def next_cells(
    path: Path,
    adviser: Adviser,
    *,
    sigma_n: float,
    outdir: Path,
    cells: int | None = None,
    budget_nimg: int | None = None,
    records: Sequence[Path] = (),
    runs: Path = Path("runs"),
) -> NextCells:
    """Choose cells of the grid at `path` and write `OUTDIR/<name>-next.toml`; cost is the images trained.

    Another file of that name stays as it is: the grid is then `<name>-next-2.toml`, and so on.

    Raises UsageError where the grid cannot price a noisy image at `sigma_n`, or where its cells differ in more than
    their images (a price compares one method).
    """
    grid = read_grid(path)
    candidates = _candidates(grid, sigma_n, path)
    known = [*(read(*records).records if records else ()), *_finished(grid, runs)]
    durations = {c.settings.schedule.duration_nimg for c in candidates.values()}
    if len(durations) > 1:
        raise UsageError(
            f"{path}: cells train on {', '.join(map(str, sorted(durations)))} images: plan for one of them"
        )
    duration = durations.pop()
    advice = adviser.advise(
        known,
        sigma_n,
        list(candidates),
        cost=lambda mixture: float(duration),
        cells=cells,
        budget=None if budget_nimg is None else float(budget_nimg),
        duration_nimg=duration,
    )
    seeds = _fresh_seeds(advice, known, min(c.seed for c in grid.cells))
    target = None
    if advice.steps:
        target = _written(outdir, f"{grid.name}-next", _table(path, grid, candidates, advice, seeds))
    return NextCells(advice, sigma_n, seeds, len(known), target)


def _written(outdir: Path, name: str, table: dict[str, Any]) -> Path:
    """The file NAME.toml of a grid, which has that name; NAME-2, NAME-3, ... where another one is there."""
    for count in itertools.count(1):
        own = name if count == 1 else f"{name}-{count}"
        path, text = outdir / f"{own}.toml", grid_text({**table, "name": own})
        if not os.path.lexists(path):
            atomic_write_text(path, text)
            return path
        with contextlib.suppress(DataError):
            if read_text(path) == text:
                return path
    raise AssertionError("there is always a next number")


def _candidates(grid: Grid, sigma_n: float, path: Path) -> dict[Mixture, SweepCell]:
    """The grid's clean-only cells and its mixtures at the noise level; one cell each."""
    out: dict[Mixture, SweepCell] = {}
    for cell in grid.cells:
        amounts = cell.settings.amounts
        if amounts.n_clean is None and amounts.n_noisy is None:  # shares of data that must be counted
            config = resolve_cell(cell).config
            clean, noisy = config.n_clean, config.n_noisy
        else:
            clean, noisy = amounts.n_clean or 0, amounts.n_noisy or 0
        mixture = Mixture(clean, noisy, cell.settings.train.sigma_n if noisy else None)
        if clean and (not noisy or mixture.sigma_n == sigma_n):
            out.setdefault(mixture, cell)
    if not any(m.n_noisy for m in out):
        levels = sorted({c.settings.train.sigma_n for c in grid.cells if c.settings.amounts.asks_for_noise})
        found = ", ".join(f"{s:g}" for s in levels) or "none"
        raise UsageError(f"{path}: no cell mixes clean images with noisy ones at sigma {sigma_n:g} (it has {found})")
    return out


def _finished(grid: Grid, runs: Path) -> list[Record]:
    """Records of the grid's cells that are done."""
    done = (cell for cell in grid.cells if runs.is_dir() and cell_state(cell, runs)[0] == "done")
    return [record for cell in done for record in run_cell(cell, runs).records]


def _fresh_seeds(advice: Advice, known: Sequence[Record], first: int) -> tuple[int, ...]:
    """The seed of each step: the first that its mixture has not been trained with."""
    used: Counter[tuple[Mixture, int]] = Counter()
    for r in known:
        level = r.sigma_n if isinstance(r.sigma_n, float) and r.n_noisy else None
        used[Mixture(r.n_clean, r.n_noisy, level), r.seed or 0] += 1
    out = []
    for step in advice.steps:
        seed = first
        while used[step.mixture, seed]:
            seed += 1
        used[step.mixture, seed] += 1
        out.append(seed)
    return tuple(out)


def _table(
    path: Path, grid: Grid, candidates: dict[Mixture, SweepCell], advice: Advice, seeds: Sequence[int]
) -> dict[str, Any]:
    """The grid of the chosen cells, with the settings of the one they were chosen from."""
    source = read_toml(path)
    entries = {cell["name"]: cell for cell in source["cell"]}
    chosen: dict[Mixture, list[int]] = {}
    for step, seed in zip(advice.steps, seeds, strict=True):
        chosen.setdefault(step.mixture, []).append(seed)
    cells = []
    for mixture, own in chosen.items():
        name = candidates[mixture].name
        entry = dict(entries.get(name) or entries[name.rpartition(" sigma ")[0]])
        if mixture.n_noisy:
            entry["sigma"] = mixture.sigma_n
        cells.append({**entry, "name": name, "seeds": own})
    return {
        "name": f"{grid.name}-next",
        "description": f"chosen from {grid.name}: {advice.sentence}",
        "base": source.get("base", {}),
        "cell": cells,
    }
