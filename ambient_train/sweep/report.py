"""Status and report of a sweep: the table with standard errors, the records, the CSV."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.console import say, talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text
from ambient_theory.shared.outdirs import check_outputs
from ambient_theory.shared.plain_text import csv_field, duration_text
from ambient_theory.shared.reading import read_records
from ambient_theory.shared.records import Record, write_records
from ambient_train.evaluation.floors import record_cautions
from ambient_train.sweep.grid import Grid, read_grid
from ambient_train.sweep.pool import CellOutcome, check, run_sweep
from ambient_train.sweep.summary import Summary, summarise
from ambient_train.training.world import choose_device

RECORDS, TABLE, SAMPLES = "records.jsonl", "table.csv", "samples"
"""What a sweep leaves in its folder; it is known by the records, which are written first."""
_Cell = tuple[str, int]
"""Name and seed."""
REWRITE_S = 10.0
"""Seconds between two writings of the records while a sweep goes on."""


@dataclass(frozen=True)
class SweepResult:
    """Outcomes of all cells, and where the records and the table were written.

    earlier: labels of cells that were not done now, whose records are those of an earlier command. left_out: of those
    whose earlier records are of trainings by other settings, and are kept no longer.
    """

    grid: Grid
    outcomes: list[CellOutcome]
    records: list[Record]
    summaries: list[Summary]
    outdir: Path
    wall_s: float
    earlier: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "grid": self.grid.name,
            "cells": dict(Counter(o.state for o in self.outcomes)),
            "outdir": str(self.outdir),
            "wall_s": self.wall_s,
            "failed": [{"cell": o.cell.label, "message": o.message} for o in self.outcomes if o.state == "failed"],
            "earlier": list(self.earlier),
            "left_out": list(self.left_out),
            "summary": [asdict(s) for s in self.summaries],
        }

    def show(self) -> None:
        show_summaries(self.summaries)
        distances = [r for r in self.records if r.level is None and r.metric == "fd" and r.checkpoint == "last"]
        for sentence in record_cautions(distances):
            say(sentence)
        counts = Counter(o.state for o in self.outcomes)
        print(", ".join(f"{n} {state}" for state, n in counts.items()) + f" of {len(self.grid.cells)} cells")
        for outcome in self.outcomes:
            if outcome.state == "failed":
                print(f"failed: {outcome.cell.label}: {outcome.message}")
        for what, labels in (
            ("not done now, with the records of an earlier command", self.earlier),
            ("not done now, and left out, since their earlier records are of other settings", self.left_out),
        ):
            if labels:
                say(f"{what}: {len(labels)} ({', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''})")
        print(f"records: {self.outdir / RECORDS}")

    def check(self) -> None:
        check(self.outcomes, self.grid)


def run_grid(
    path: Path,
    runs: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    device: str = "auto",
    outdir: Path | None = None,
    quiet: bool = False,
) -> SweepResult:
    """Run what is not done of a grid and write `records.jsonl` and `table.csv` of all that is done.

    The records are written as cells are done, at most every `REWRITE_S`, so that a sweep that is killed leaves them.
    Records that are there of cells that are not done now stay.
    """
    grid = read_grid(path)
    where = sweep_folder(grid, runs, outdir)
    check_folder(where, grid)
    kind = choose_device(device).type
    started = time.monotonic()
    written = started
    so_far: list[CellOutcome] = []
    before = _stored(where)

    def listen(outcome: CellOutcome, done: int, total: int) -> None:
        nonlocal written
        elapsed = time.monotonic() - started
        left = elapsed / done * (total - done)
        detail = f" ({outcome.message})" if outcome.message else ""
        talk(
            f"[{done}/{total}] {outcome.cell.label}: {outcome.state}{detail}, "
            f"{outcome.wall_s:,.0f} s; about {duration_text(left)} left",
            quiet=quiet,
        )
        so_far.append(outcome)
        if outcome.records and time.monotonic() - written >= REWRITE_S:
            written = time.monotonic()
            write_records(where / RECORDS, (r for rows in _by_cell(grid, so_far, before).values() for r in rows))

    outcomes = run_sweep(grid, runs, workers=workers, device=kind, threads=threads, listener=listen)
    return report(grid, outcomes, where, time.monotonic() - started, before)


def sweep_folder(grid: Grid, runs: Path, outdir: Path | None) -> Path:
    """Where the records and the table of a grid go: `outdir`, else beside its runs."""
    return outdir or runs / f"sweep-{grid.name}"


def check_folder(where: Path, grid: Grid) -> None:
    """Raise UsageError where the folder holds the results of another grid, or anybody's; nothing is written."""
    table = where / RECORDS
    check_outputs(where, (RECORDS, TABLE, SAMPLES), "sweep", own=table.is_file())
    if not table.is_file():
        return
    cells = {record.cell for record in read_records(table)}
    if others := sorted(str(c) for c in cells - {*grid.order}):
        raise UsageError(
            f"{where} holds results of other cells ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}): "
            "choose another --outdir, or the grid that has them"
        )


def report(
    grid: Grid,
    outcomes: list[CellOutcome],
    where: Path,
    wall_s: float,
    before: Mapping[_Cell, list[Record]] | None = None,
) -> SweepResult:
    """Write `records.jsonl`, `table.csv` and the samples of all that is done to `where`.

    Of cells that are not, the records of `before` stay, by default those that are there.
    """
    before = _stored(where) if before is None else before
    by_cell = _by_cell(grid, outcomes, before)
    now = {(o.cell.name, o.cell.seed) for o in outcomes if o.state == "done"}
    earlier, left_out = (
        tuple(f"{name} seed {seed}" for name, seed in keys)
        for keys in ([k for k in by_cell if k not in now], [k for k in before if k not in by_cell])
    )
    records = [record for rows in by_cell.values() for record in rows]
    summaries = summarise(records, grid.order)
    write_records(where / RECORDS, records)
    atomic_write_text(where / TABLE, table_csv(summaries))
    _copy_samples(outcomes, where / SAMPLES)
    return SweepResult(grid, outcomes, records, summaries, where, round(wall_s, 1), earlier, left_out)


def _stored(where: Path) -> dict[_Cell, list[Record]]:
    """The records that are there."""
    out: dict[_Cell, list[Record]] = {}
    for record in read_records(where / RECORDS) if (where / RECORDS).is_file() else ():
        out.setdefault((str(record.cell), int(record.seed or 0)), []).append(record)
    return out


def _by_cell(
    grid: Grid, outcomes: Iterable[CellOutcome], before: Mapping[_Cell, list[Record]]
) -> dict[_Cell, list[Record]]:
    """In the order of the grid the records of each cell that is done, else those it had before; then those of seeds
    that are not in the grid. Not those of a cell that was trained in another way than it is now: a mean over both would
    be of nothing."""
    done = {(o.cell.name, o.cell.seed): o.records for o in outcomes if o.state == "done"}
    methods = {name: rows[0].method for (name, _), rows in done.items() if rows}
    known = {k: rows for k, rows in before.items() if rows[0].method == methods.get(k[0], rows[0].method)} | done
    places = dict.fromkeys([*((cell.name, cell.seed) for cell in grid.cells), *known])
    return {key: known[key] for key in places if key in known}


def _copy_samples(outcomes: list[CellOutcome], where: Path) -> None:
    """The last sample grid of each cell's first seed, under the cell's name."""
    for outcome in outcomes:
        grids = sorted((Path(outcome.directory) / "samples").glob("*.png")) if outcome.directory else []
        file = where / f"{outcome.cell.name.replace('/', '-')}.png"
        if grids and outcome.cell.seed == min(o.cell.seed for o in outcomes):
            atomic_write_bytes(file, grids[-1].read_bytes())


def table_csv(summaries: list[Summary]) -> str:
    """Comma-separated values, one line a cell, duration and score."""
    out = io.StringIO()
    names = list(Summary.__dataclass_fields__)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for s in summaries:
        row = asdict(s)
        writer.writerow([csv_field(v) if isinstance(v := row[n], str) else "" if v is None else v for n in names])
    return out.getvalue()


def show_summaries(summaries: list[Summary], reference: str = "heldout-clean", metric: str = "fd") -> None:
    """The table people read: cells in rows, mean +- standard error over seeds for each duration and extractor."""
    from ambient_theory.shared.wide_tables import print_table

    last = [s for s in summaries if s.metric == metric and s.checkpoint == "last"]
    chosen = [s for s in last if s.reference == reference] or last
    columns = list(dict.fromkeys((s.extractor, s.duration_nimg) for s in chosen))
    memory_extractors = list(dict.fromkeys(e for e, _ in columns))
    headings = ["cell", "clean\n+ noisy", "seeds"]
    headings += [f"{extractor.split(':')[0]}\n{nimg:,} img" for extractor, nimg in columns]
    headings += [f"repeated\nclean,\n{extractor.split(':')[0]}" for extractor in memory_extractors]
    table = []
    rows: dict[str, dict[tuple[str, int], Summary]] = {}
    for s in chosen:
        rows.setdefault(s.cell, {})[s.extractor, s.duration_nimg] = s
    for cell, values in rows.items():
        first = next(iter(values.values()))
        floors = [
            next((f"{v.memorisation_floor:.3g}" for k, v in values.items() if k[0] == e and v.memorisation_floor), "")
            for e in memory_extractors
        ]
        amounts = f"{first.n_clean:,}\n+ {first.n_noisy:,}"
        table.append([cell, amounts, str(first.seeds), *(_number(values.get(c)) for c in columns), *floors])
    title = f"Frechet distance to {reference} images, mean +- standard error over seeds"
    print_table(title, headings, table, keys=3, right=range(1, len(headings)))
    real = {s.extractor.split(":")[0]: s.floor for s in chosen if s.floor is not None}
    found = ", ".join(f"{k} {v:.3g}" for k, v in real.items())
    say(f"score of as many clean images (drawn with replacement where there are fewer): {found}")


def _number(s: Summary | None) -> str:
    if s is None:
        return ""
    return f"{s.mean:.3g}" + (f" ± {s.stderr:.1g}" if s.stderr is not None else "")
