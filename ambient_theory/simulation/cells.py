"""The simulator: one cell run, many cells run (resumable, in parallel), rows and records.

The estimators of a cell see the same draws. A cell's random numbers come from Philox keyed on the seed and the hash
of what is drawn, so results depend neither on the order of the cells nor on the number of workers, and adding an
estimator changes no draw.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ambient_theory.bounds import sizes as bounds
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import canonical_json, content_hash
from ambient_theory.shared.record_schema_1 import added_noise
from ambient_theory.shared.records import Record, library_versions
from ambient_theory.shared.signals import leave_with_parent
from ambient_theory.simulation.collapse import dataset_name
from ambient_theory.simulation.grid import OF_FILE
from ambient_theory.simulation.ledger import Ledger, SimulationCell
from ambient_theory.simulation.trials import run_trials, share_replicates

COLUMNS = (
    "k", "d", "family", "mix", "n", "n_clean", "n_noisy", "sigmas", "n_d", "n_l", "delta", "estimator", "weights",
    "reps", "seed", "w1_mean", "w1_median", "w1_se", "frac_projected", "bound_pca", "bound_low", "bound_floor",
    "bound", "ratio", "weight_condition", "low_weight_condition",
)  # fmt: skip

NOT_HASHED = ("w1", "frac", "ratio", "weight_condition", "low_weight_condition")
"""Beginnings of columns that are results, or follow from the others: they do not name a record."""


def cell_generator(cell: SimulationCell) -> np.random.Generator:
    """Philox keyed on (seed, SHA-256 of the cell without its estimators)."""
    drawn = {key: value for key, value in cell.config.items() if key not in ("estimators", "seed")}
    digest = hashlib.sha256(canonical_json(drawn).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([cell.seed, *words])))


def run_cell(cell: SimulationCell) -> dict[str, Any]:
    """Rows of one cell, one for each estimator, with the columns `COLUMNS` (and `overlap` in d dimensions)."""
    start = time.perf_counter()
    with threadpool_limits(1):  # small matrices: threads only get in each other's way
        rows = _rows(cell)
    return {"rows": rows, "wall_s": time.perf_counter() - start}


def _rows(cell: SimulationCell) -> list[dict[str, Any]]:
    rng = cell_generator(cell)
    trials = run_trials(cell, share_replicates(cell.atomic_laws(), cell.reps, rng), rng)
    rows = []
    for (name, weights), trial in zip(cell.estimators, trials, strict=True):
        w1 = trial.w1
        rows.append(
            {key: getattr(cell, key) for key in ("k", "d", "family", "mix", "n", "n_clean", "n_noisy")}
            | {
                "sigmas": list(cell.levels),
                "n_d": bounds.n_d(cell.levels, cell.counts),
                "n_l": bounds.n_l(cell.k, cell.levels, cell.counts),
                "delta": cell.delta,
                "estimator": name,
                "weights": weights,
                "reps": cell.reps,
                "seed": cell.seed,
                "w1_mean": float(w1.mean()),
                "w1_median": float(np.median(w1)),
                "w1_se": float(w1.std(ddof=1) / np.sqrt(len(w1))),
                "frac_projected": float(trial.projected.mean()),
            }
            | _bound_of(cell, float(w1.mean()))
            | {name: float(values.mean()) for name, values in trial.more.items()}
        )
    return rows


def _bound_of(cell: SimulationCell, w1: float) -> dict[str, float]:
    """The columns of the bound, which follow from the cell: a stored result may have been written without them."""
    terms = bounds.bound(cell.k, cell.d, cell.levels, cell.counts, radius=cell.radius)
    named = {"bound_pca": terms.pca, "bound_low": terms.low, "bound_floor": terms.floor, "bound": terms.total}
    conditions = {name: getattr(terms, name) for name in ("weight_condition", "low_weight_condition")}
    return named | {"ratio": w1 / terms.total} | conditions


# ----------------------------------------------------------------------------------------------------- many cells


@dataclass(frozen=True)
class CellDone:
    """A finished cell: number of `total`, its rows, and whether the ledger already had it."""

    number: int
    total: int
    cell: SimulationCell
    rows: list[dict[str, Any]]
    wall_s: float
    cached: bool


def simulate(cells: Sequence[SimulationCell], ledger: Ledger | None = None, workers: int = 1) -> Iterator[CellDone]:
    """Run cells, yielding each as it is done. Cells that the ledger holds are not run again.

    workers: processes (joblib), one thread each; 1 runs in this process. Results do not depend on it.
    """
    if workers < 1:
        raise UsageError(f"workers must be >= 1, not {workers}")
    number = 0
    missing = []
    for cell in cells:
        stored = ledger.load(cell) if ledger else None
        if stored is None:
            missing.append(cell)
            continue
        number += 1
        rows = [row | _bound_of(cell, row["w1_mean"]) for row in stored["rows"]]
        yield CellDone(number, len(cells), cell, rows, stored["wall_s"], True)
    for cell, result in _results(missing, workers):
        if ledger:
            ledger.store(cell, result)
        number += 1
        yield CellDone(number, len(cells), cell, result["rows"], result["wall_s"], False)


def _results(cells: Sequence[SimulationCell], workers: int) -> Iterable[tuple[SimulationCell, dict[str, Any]]]:
    if workers == 1 or len(cells) < 2:
        for cell in cells:
            yield cell, run_cell(cell)
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(_run_one)(cell) for cell in cells)


def _run_one(cell: SimulationCell) -> tuple[SimulationCell, dict[str, Any]]:
    if multiprocessing.current_process().name != "MainProcess":
        leave_with_parent()
    return cell, run_cell(cell)


def in_plan_order(cells: Sequence[SimulationCell], done: Iterable[CellDone]) -> list[dict[str, Any]]:
    """All rows in the order of the plan, whatever the order of completion."""
    by_hash = {item.cell.hash: item.rows for item in done}
    return [row for cell in cells for row in by_hash.get(cell.hash, [])]


def to_records(rows: Sequence[Mapping[str, Any]], s_clean: float = 1.0, *, wall_s: float | None = None) -> list[Record]:
    """One record for each row: metric `w1`, extractor `none`, reference `truth`; all columns in `extra`.

    A record tells clean samples from noisy ones of one level: rows of more levels (the mix `file`) have none. s_clean:
    total standard deviation of a clean sample; `sigma_n^2 = s^2 - s_clean^2` of the noisy ones.
    """
    versions = library_versions("numpy", "scipy")
    records = []
    for row in rows:
        if row["mix"] == OF_FILE:
            continue
        noisy = row["n_noisy"] > 0
        records.append(
            Record(
                source="simulate",
                dataset=dataset_name(row),
                n_clean=row["n_clean"],
                n_noisy=row["n_noisy"],
                sigma_n=added_noise(max(row["sigmas"]), s_clean) if noisy else None,
                metric="w1",
                extractor="none",
                reference="truth",
                value=row["w1_mean"],
                stderr=row["w1_se"],
                n_eval=row["reps"],
                seed=row["seed"],
                config_hash=content_hash({key: row[key] for key in row if not key.startswith(NOT_HASHED)}),
                versions=versions,
                wall_s=wall_s,
                regime=row["mix"],
                extra=dict(row),
            )
        )
    return records
