"""One simulation from config to files: plan, run with progress, tables, records, CSV, figures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ambient_theory.shared.console import talk
from ambient_theory.shared.files import atomic_write_text, content_hash
from ambient_theory.shared.frames import frame
from ambient_theory.shared.notebooks import picture_html
from ambient_theory.shared.outdirs import claim
from ambient_theory.shared.plain_text import duration_text
from ambient_theory.shared.progress import Progress, progress_listener
from ambient_theory.shared.records import write_records
from ambient_theory.simulation.calibration import CalibrationConfig, calibrate, plan_calibration
from ambient_theory.simulation.cells import CellDone, in_plan_order, simulate, to_records
from ambient_theory.simulation.collapse import collapse_table, panels
from ambient_theory.simulation.envelope import worst_of_grid
from ambient_theory.simulation.exchange import ExchangeConfig, exchange_table, plan_exchange
from ambient_theory.simulation.grid import GridPlan, SimulationConfig, plan
from ambient_theory.simulation.ledger import Ledger, SimulationCell
from ambient_theory.simulation.report import render, render_calibration, render_exchange, summary, to_csv
from ambient_theory.simulation.slopes import slope_table

MANIFEST = "simulation.json"
LONG_S = 900.0
"""What takes longer is told before it begins."""
Config = SimulationConfig | ExchangeConfig | CalibrationConfig


@dataclass(frozen=True, repr=False)
class SimulationResult:
    """summary: JSON-ready; rendered: for a terminal; files: what was written."""

    summary: dict[str, Any]
    rendered: RenderableType
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        where = str(self.files[0].parent)
        return f"SimulationResult({where!r}, {len(self.summary['rows']):,} cells)"

    def _repr_html_(self) -> str:
        """The figure, for notebooks."""
        return picture_html(next((f for f in self.files if f.suffix == ".png"), None), repr(self))

    def to_frame(self) -> Any:
        """The cells as a `pandas.DataFrame`, one row a cell. Raises UsageError without pandas."""
        return frame(self.summary["rows"])


def config_dict(config: Config) -> dict[str, Any]:
    """The config as JSON types; what came later is there only where it says something, so that what was made before
    keeps its name."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    inner = values["grid"] if isinstance(config, CalibrationConfig) else values
    for key in ("levels", "shares"):
        if not inner.get(key, True):
            del inner[key]
    return values


def default_outdir(config: Config) -> Path:
    """`runs/simulate-gmm-<hash8>`, `exchange-` or `calibration-`: the same command finds its finished cells again."""
    kinds = {SimulationConfig: "simulate-gmm", ExchangeConfig: "exchange", CalibrationConfig: "calibration"}
    kind = kinds[type(config)]
    return Path("runs") / f"{kind}-{content_hash(config_dict(config))}"


def run_simulation(
    config: SimulationConfig, outdir: Path | None = None, *, workers: int = 1, quiet: bool = False
) -> SimulationResult:
    """Run the grid below `outdir` (finished cells are kept) and write records, CSV, summary and figures there.

    Raises UsageError if `outdir` holds a simulation with another config, or files of the same names.
    """
    start = time.perf_counter()
    outdir = outdir or default_outdir(config)
    _claim(outdir, config)
    for k in config.k:
        if k >= 4:
            talk(f"k = {k}: in the worst case W1 falls only like n_l^(-1/{4 * k - 2}); expect flat curves", quiet=quiet)
    planned = plan(config)
    for skipped in planned.skipped:
        talk(f"skipped {skipped.name}: {skipped.reason}", quiet=quiet)
    done = run_cells(planned.cells, Ledger(outdir / "cells"), workers, quiet)
    every_row = in_plan_order(planned.cells, done)
    rows, at_end = worst_of_grid(every_row)
    all_skipped = [*planned.skipped, *at_end]
    slopes, collapse = slope_table(rows, seed=config.seed), collapse_table(rows)
    result = summary(rows, slopes, collapse, all_skipped) | {"config": config_dict(config)}
    files = [outdir / "records.jsonl", outdir / "table.csv", outdir / "summary.json"]
    write_records(files[0], to_records(rows, config.s_clean, wall_s=sum(item.wall_s for item in done)))
    atomic_write_text(files[1], to_csv(every_row))
    atomic_write_text(files[2], json.dumps(result, indent=1) + "\n")
    if rows:
        from ambient_theory.simulation.figures import save, w1_figure

        files += save(w1_figure(panels(rows)), outdir / "w1")
    cached = sum(item.cached for item in done)
    talk(
        f"{len(done)} cells ({cached} already done) in {time.perf_counter() - start:.1f} s with {workers} worker(s)",
        quiet=quiet,
    )
    return SimulationResult(result, render(rows, slopes, collapse, all_skipped), tuple(files))


def run_exchange(
    config: ExchangeConfig, outdir: Path | None = None, *, workers: int = 1, quiet: bool = False
) -> SimulationResult:
    """`--iso`: the exchange rate at equal error over the separation; files as `run_simulation`."""
    outdir = outdir or default_outdir(config)
    _claim(outdir, config)
    cells = tuple(plan_exchange(config))
    done = run_cells(cells, Ledger(outdir / "cells"), workers, quiet)
    rows = in_plan_order(cells, done)
    table = exchange_table(config, rows)
    result = {
        "schema": "ambient.exchange/2",
        "config": config_dict(config),
        "exchange": [x.to_dict() for x in table],
        "rows": rows,
    }
    files = [outdir / "records.jsonl", outdir / "table.csv", outdir / "summary.json"]
    write_records(files[0], to_records(rows, config.s_clean, wall_s=sum(item.wall_s for item in done)))
    atomic_write_text(files[1], to_csv(rows))
    atomic_write_text(files[2], json.dumps(result, indent=1) + "\n")
    from ambient_theory.simulation.figures import exchange_figure, save

    files += save(exchange_figure(table), outdir / "exchange")
    return SimulationResult(result, render_exchange(table), tuple(files))


def run_calibration(
    config: CalibrationConfig, outdir: Path | None = None, *, workers: int = 1, quiet: bool = False
) -> SimulationResult:
    """`--calibrate`: the constants of the bound from worst cases; files as `run_simulation`."""
    outdir = outdir or default_outdir(config)
    _claim(outdir, config)
    planned = plan_calibration(config)
    done = run_cells(planned.cells, Ledger(outdir / "cells"), workers, quiet)
    every_row = in_plan_order(planned.cells, done)
    rows, at_end = worst_of_grid(every_row)
    found = calibrate(rows, config.grid.seed)
    skipped = [*planned.skipped, *at_end]
    result = {
        "schema": "ambient.calibration/1",
        "config": config_dict(config),
        "calibration": found.to_dict(),
        "rows": rows,
        "skipped": [{"cell": s.name, "reason": s.reason} for s in skipped],
    }
    files = [outdir / "table.csv", outdir / "summary.json"]
    atomic_write_text(files[0], to_csv(every_row))
    atomic_write_text(files[1], json.dumps(result, indent=1) + "\n")
    from ambient_theory.simulation.figures import calibration_figure, save

    files += save(calibration_figure(found), outdir / "calibration")
    return SimulationResult(result, render_calibration(found, skipped), tuple(files))


def run_cells(cells: tuple[SimulationCell, ...], ledger: Ledger | None, workers: int, quiet: bool) -> list[CellDone]:
    """`simulate` with its progress on stderr, and how long it will take where that is long."""
    missing = tuple(cell for cell in cells if ledger is None or ledger.load(cell) is None)
    if (seconds := estimate_seconds(GridPlan(missing, ()), workers)) > LONG_S:
        talk(
            f"{len(missing)} cells take about {duration_text(seconds)} with {workers} worker(s): fewer --reps, more "
            "--workers and, of a grid, smaller --n shorten it, --quick does both. Ctrl-C keeps the cells that are done",
            quiet=quiet,
        )
    done: list[CellDone] = []
    with progress_listener(quiet or not cells) as listener:
        for item in simulate(cells, ledger, workers):
            done.append(item)
            listener(Progress("cells", item.number, item.total, unit="cells"))
    return done


def _claim(outdir: Path, config: Config) -> None:
    figure = {SimulationConfig: "w1", ExchangeConfig: "exchange", CalibrationConfig: "calibration"}[type(config)]
    outputs = ("cells", "records.jsonl", "table.csv", "summary.json", f"{figure}.svg", f"{figure}.png")
    claim(outdir, MANIFEST, "ambient.simulation-config/1", config_dict(config), "simulation", outputs)


def estimate_seconds(planned: GridPlan, workers: int = 1) -> float:
    """Expected wall time from measured unit costs (one thread of a 2020s x86 core); good to a factor of about two."""
    total = 0.0
    for c in planned.cells:
        reps, levels = c.reps, len(c.levels)
        if c.engine == "exact":
            total += reps * sum(c.counts) * c.d * 3e-8
        elif c.engine == "wishart":
            total += reps * levels * (c.d**2 * 4e-8 + c.d**3 * 2e-10 + c.bins * 1e-7)
        else:
            total += reps * levels * c.bins * 5e-8
        for name, _ in c.estimators:
            per_fit = {"mean-only": 1e-6, "mle": 0.012, "em": 0.05, "npmle": 0.08}.get(name, 2.5e-5)
            total += reps * per_fit
            if c.engine == "exact" and c.d > 1 and c.k > 1 and name in ("dmm", "clean-only"):  # each sample is used
                total += reps * (0.1 + 8e-5 * sum(c.counts) if c.k > 2 else 2e-6 * sum(c.counts))
            elif name in ("dmm", "clean-only") and c.k >= 3 and c.family != "separated":
                total += reps * 1e-3
    return total / workers + 1.0


def dry_run_report(config: Config, workers: int = 1) -> dict[str, Any]:
    """What would run: cells, replicates, an estimate of the time, what is skipped."""
    if isinstance(config, ExchangeConfig):
        planned = GridPlan(tuple(plan_exchange(config)), ())
    else:
        planned = plan(config) if isinstance(config, SimulationConfig) else plan_calibration(config)
    seconds = estimate_seconds(planned, workers)
    took = f"about {duration_text(seconds)} with {workers} worker(s)"
    lines = [
        f"{len(planned.cells)} cells of {config.reps} replicates, {took}",
        f"outdir {default_outdir(config)} unless --outdir is given",
        *(f"skipped {s.name}: {s.reason}" for s in planned.skipped),
    ]
    return {
        "config": config_dict(config),
        "cells": [cell.directory_name for cell in planned.cells],
        "skipped": [{"cell": s.name, "reason": s.reason} for s in planned.skipped],
        "estimate_s": seconds,
        "text": "\n".join(lines),
    }
