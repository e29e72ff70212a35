"""Sweeps: a grid file becomes independent cells, each a run directory; finished cells are skipped, others are run.

A grid is TOML: `[base]` settings for every cell (see `resolve`), `[[cell]]` tables with a `name` and settings that
differ, and `seeds`. A list-valued `sigma` in a cell makes one cell for each. Cells with the same config share a run
directory, also across grids in the same `runs` folder, so a training is never done twice. `STATED` settings describe
data that may not be at hand.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import AmbientError, BusyError, DataError, PartialError, StoppedError, UsageError
from ambient_theory.shared.files import exclusive_lock
from ambient_theory.shared.records import Record
from ambient_train.runs.resolve import Resolved, resolve
from ambient_train.runs.run import RunDirectory, RunOptions, default_directory, execute
from ambient_train.settings.config import read_toml
from ambient_train.training.signals import EXIT_CODES

STATED = ("n_images", "img_channels", "img_resolution", "n_classes", "data_from")
"""Of the data of a cell: training images, colours (default 3), side in pixels, classes; where to get it, in words."""


@dataclass(frozen=True)
class SweepCell:
    """One training of a grid: name (of the regime and noise), seed, flat settings for `resolve`, `STATED` keys."""

    name: str
    seed: int
    settings: Mapping[str, Any]
    stated: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass
class CellOutcome:
    """state: done, failed, stopped, or busy (another sweep works on it). records: of all scored points.

    message: why it failed. wall_s: spent now. exit_code: of a stopped one.
    """

    cell: SweepCell
    state: str
    directory: str = ""
    records: list[Record] = field(default_factory=list)
    message: str = ""
    wall_s: float = 0.0
    exit_code: int = 0


def read_grid(path: Path) -> Grid:
    """Parse and expand a grid. Raises DataError for an unreadable file, UsageError for a wrong entry."""
    table = read_toml(path)
    if unknown := sorted(set(table) - {"name", "description", "seeds", "base", "cell"}):
        raise UsageError(f"{path}: unknown entry {', '.join(unknown)}: known are name, description, seeds, base, cell")
    cells = table.get("cell")
    if not isinstance(cells, list) or not cells:
        raise UsageError(f"{path}: no [[cell]]: a grid needs at least one")
    seeds = table.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or any(isinstance(s, bool) or not isinstance(s, int) for s in seeds):
        raise UsageError(f"{path}: seeds must be a list of whole numbers, not {seeds!r}")
    base = table.get("base", {})
    out: list[SweepCell] = []
    order: list[str] = []
    for entry in cells:
        entry = dict(entry)
        name = entry.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"{path}: every [[cell]] needs a name")
        own_seeds = entry.pop("seeds", seeds)
        sigma = entry.get("sigma")
        for level in sigma if isinstance(sigma, list) else [sigma]:
            settings = {**base, **entry, "sigma": level}
            stated = {key: settings.pop(key) for key in STATED if key in settings}
            label = f"{name} sigma {level:g}" if isinstance(sigma, list) else name
            if label in order:
                raise UsageError(f"{path}: two cells are called {label!r}")
            order.append(label)
            out.extend(SweepCell(label, s, {**settings, "seed": s}, stated) for s in own_seeds)
    out.sort(key=lambda cell: cell.seed)  # whole replicates first: an interrupted sweep has every cell of some seeds
    return Grid(str(table.get("name", path.stem)), str(table.get("description", "")), tuple(out), tuple(order))


@functools.lru_cache(maxsize=4)
def _shared_images(data: str, resolution: int | None, holdout: float | None, max_images: int | None) -> Any:
    from ambient_train.data.load import load_images

    return load_images(data, split="train", resolution=resolution, holdout=holdout, max_images=max_images)


def resolve_cell(cell: SweepCell) -> Resolved:
    """The cell's config; images are loaded once a process. Raises DataError that says where to put absent data."""
    try:
        return resolve(cell.settings, load=_shared_images)
    except DataError as error:
        place = Path(str(cell.settings.get("data", "")))
        if "data_from" not in cell.stated or place.expanduser().exists():
            raise
        raise DataError(f"{place} is not here ({Path.cwd()}): put it there; {cell.stated['data_from']}") from error


def cell_state(cell: SweepCell, runs: Path) -> tuple[str, Path, Resolved]:
    """`done`, `started` or `missing`, with its directory."""
    resolved = resolve_cell(cell)
    path = default_directory(runs, resolved.config, resolved.source.name)
    directory = RunDirectory(path)
    scores = directory.scores(resolved.config, resolved.evaluation)
    wanted = {*resolved.score_at, resolved.duration_nimg}
    if wanted <= set(scores):
        return "done", path, resolved
    return ("started" if path.exists() else "missing"), path, resolved


def run_cell(cell: SweepCell, runs: Path, device: str = "cpu", threads: int = 1) -> CellOutcome:
    """Run one cell to its end (or find it done). A user's or a data error becomes a failed outcome."""
    import torch

    from ambient_train.training.world import World, choose_device

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    started = time.monotonic()
    try:
        state, path, resolved = cell_state(cell, runs)
        if state == "done":
            scores = RunDirectory(path).scores(resolved.config, resolved.evaluation)
            scores = {n: scores[n] for n in sorted({*resolved.score_at, resolved.duration_nimg})}
        else:
            options = RunOptions(
                duration_nimg=resolved.duration_nimg, score_at=resolved.score_at, device=device, keep_checkpoints=1
            )
            world = World(device=choose_device(device))
            details = {"cell": cell.name, "settings": dict(cell.settings)}
            scores = execute(
                resolved.config, resolved.source, path, options, resolved.evaluation, world=world, details=details
            )
    except BusyError as error:
        return CellOutcome(cell, "busy", str(path), message=str(error))
    except StoppedError as error:
        return CellOutcome(
            cell, "stopped", message=str(error), wall_s=time.monotonic() - started, exit_code=error.exit_code
        )
    except (AmbientError, OSError) as error:
        return CellOutcome(cell, "failed", message=str(error), wall_s=time.monotonic() - started)
    records = [_named(record, cell.name) for at in scores.values() for record in at]
    return CellOutcome(cell, "done", str(path), records, wall_s=time.monotonic() - started)


def _named(record: Record, name: str) -> Record:
    return Record.from_dict({**record.to_dict(), "cell": name})


def run_sweep(
    grid: Grid,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    threads: int = 1,
    listener: Callable[[CellOutcome, int, int], None] | None = None,
) -> list[CellOutcome]:
    """All cells of a grid, `workers` at a time, in separate processes if more than one; outcomes in grid order.

    Failed cells do not stop the others. SIGINT and SIGTERM reach the workers, which save; the outcome is then
    `stopped`, and the same call continues.
    """
    outcomes: dict[int, CellOutcome] = {}

    def finished(index: int, outcome: CellOutcome) -> None:
        outcomes[index] = outcome
        if listener:
            listener(outcome, len(outcomes), len(grid.cells))

    if workers <= 1:
        queue = collections.deque(enumerate(grid.cells))
        while queue:
            index, cell = queue.popleft()
            outcome = run_cell(cell, runs, device, threads)
            if outcome.state == "busy":
                if all(i not in outcomes and _is_busy(c, runs) for i, c in queue):
                    _wait(Path(outcome.directory))
                queue.append((index, cell))
                continue
            finished(index, outcome)
            if outcome.state == "stopped":
                break
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
            futures = {pool.submit(run_cell, cell, runs, device, threads): i for i, cell in enumerate(grid.cells)}
            heard: list[int] = []
            previous = {s: signal.signal(s, _forward(pool, heard)) for s in EXIT_CODES}
            try:
                while futures:
                    future = next(concurrent.futures.as_completed(futures))
                    index = futures.pop(future)
                    try:
                        outcome = future.result()
                    except concurrent.futures.CancelledError:
                        outcome = CellOutcome(grid.cells[index], "stopped", message="not started")
                    except concurrent.futures.process.BrokenProcessPool:
                        state = "stopped" if heard else "failed"
                        outcome = CellOutcome(grid.cells[index], state, message="its process was killed")
                    if outcome.state == "stopped" and heard:
                        outcome.exit_code = EXIT_CODES[signal.Signals(heard[0])]
                    if outcome.state == "busy":
                        if not futures:
                            _wait(Path(outcome.directory))
                        futures[pool.submit(run_cell, grid.cells[index], runs, device, threads)] = index
                        continue
                    finished(index, outcome)
                    if outcome.state == "stopped":
                        pool.shutdown(wait=False, cancel_futures=True)
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
    return [outcomes[i] for i in sorted(outcomes)]


def _is_busy(cell: SweepCell, runs: Path) -> bool:
    """Whether another process works on a cell."""
    _, path, _ = cell_state(cell, runs)
    if not (path / "lock").exists():
        return False
    with exclusive_lock(path / "lock") as mine:
        return not mine


def _wait(directory: Path) -> None:
    """Until the other process is through with a run directory."""
    with exclusive_lock(directory / "lock", blocking=True):
        pass


def _worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _forward(pool: concurrent.futures.ProcessPoolExecutor, heard: list[int]) -> Callable[[int, Any], None]:
    """Pass a signal on to the workers (they save and come back `stopped`) and note that it came."""

    def handler(number: int, _: Any) -> None:
        heard.append(number)
        for pid in list(pool._processes or ()):
            os.kill(pid, signal.SIGTERM)

    return handler


def check(outcomes: Sequence[CellOutcome], grid: Grid) -> None:
    """Raise StoppedError or PartialError unless every cell is done."""
    stopped = [o for o in outcomes if o.state == "stopped"]
    failed = [o for o in outcomes if o.state == "failed"]
    done = len(outcomes) - len(stopped) - len(failed)
    if stopped or len(outcomes) < len(grid.cells):
        code = max((o.exit_code for o in stopped), default=0) or StoppedError.exit_code
        raise StoppedError(f"stopped with {done} of {len(grid.cells)} cells done: the same command continues", code)
    if failed:
        first = failed[0]
        raise PartialError(
            f"{len(failed)} of {len(grid.cells)} cells failed, the others are kept; "
            f"first: {first.cell.label}: {first.message}"
        )


@dataclass(frozen=True)
class Summary:
    """Mean over seeds of one cell, duration and score. stderr: of the mean over seeds, None from one seed."""

    cell: str
    duration_nimg: int
    metric: str
    extractor: str
    reference: str
    n_clean: int
    n_noisy: int
    sigma: float | tuple[float, ...] | None
    mean: float
    stderr: float | None
    seeds: int
    floor: float | None
    memorisation_floor: float | None


def summarise(records: Sequence[Record], order: Sequence[str]) -> list[Summary]:
    """Mean and standard error over seeds of every cell, duration and score, in the order of the grid."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for r in records:
        key = (str(r.cell), r.duration_nimg or 0, r.metric, r.extractor, r.reference)
        groups.setdefault(key, []).append(r)
    place = {name: i for i, name in enumerate(order)}
    out = []
    for key, group in sorted(groups.items(), key=lambda kv: (kv[0][1:], place.get(kv[0][0], len(place)))):
        values = [r.value for r in group]
        mean = sum(values) / len(values)
        spread = sum((v - mean) ** 2 for v in values)
        stderr = (spread / (len(values) - 1) / len(values)) ** 0.5 if len(values) > 1 else None
        floors = [r.extra.get("floor") for r in group]
        memory = [r.extra.get("memorisation_floor") for r in group]
        first = group[0]
        out.append(
            Summary(
                *key,
                n_clean=first.n_clean,
                n_noisy=first.n_noisy,
                sigma=first.sigma_n,
                mean=mean,
                stderr=stderr,
                seeds=len(values),
                floor=_mean(floors),
                memorisation_floor=_mean(memory),
            )
        )
    return out


def _mean(values: Sequence[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
