"""The pool of a sweep: cells of a grid become run directories; finished cells are skipped, others are run.

Cells with the same config share a run directory, also across grids in the same `runs` folder, so a training is never
done twice.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambient_theory.shared.errors import AmbientError, BusyError, DataError, PartialError, StoppedError
from ambient_theory.shared.files import exclusive_lock, is_locked
from ambient_theory.shared.records import Record
from ambient_theory.shared.signals import EXIT_CODES, leave_with_parent
from ambient_train.data.place import is_there
from ambient_train.runs.asked import asked_details, find_run, is_scored, stored_scores
from ambient_train.runs.directory import default_directory
from ambient_train.settings.config import AUTO
from ambient_train.settings.run_options import RunOptions
from ambient_train.sweep.grid import Grid, SweepCell

if TYPE_CHECKING:
    from ambient_train.runs.resolve import Job
    from ambient_train.settings.layers import TrainSettings


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


@functools.lru_cache(maxsize=4)
def _shared_images(data: str, resolution: int | None, holdout: float | None, max_images: int | None) -> Any:
    from ambient_train.runs.resolve import load_training_images

    return load_training_images(data, resolution, holdout, max_images)


@functools.lru_cache(maxsize=2)
def _starting_weights(source: str) -> Any:
    from ambient_train.interchange.load import starting_weights

    return starting_weights(source)


def resolve_cell(cell: SweepCell) -> Job:
    """The cell's job; images are loaded once a process. Raises DataError that says where to put absent data."""
    from ambient_train.runs.resolve import resolve

    try:
        return resolve(cell.settings, load=_shared_images, weights_of=_starting_weights)
    except DataError as error:
        place = Path(cell.settings.train.data)
        if "data_from" not in cell.stated or is_there(cell.settings.train.data):
            raise
        raise DataError(f"{place} is not here ({Path.cwd()}): put it there; {cell.stated['data_from']}") from error


def in_each_precision(cell: SweepCell) -> list[SweepCell]:
    """The cell in each arithmetic that its run may have: several where `auto` is still to be settled."""
    if cell.settings.train.precision != AUTO:
        return [cell]
    from ambient_train.runs.precision import CHOICES, with_precision

    return [replace(cell, settings=with_precision(cell.settings, p)) for p in CHOICES]


def in_settled_precision(cell: SweepCell, runs: Path, device: str) -> SweepCell:
    """The cell in the arithmetic of its run, if it has begun, else in what the device has."""
    if cell.settings.train.precision != AUTO:
        return cell
    from ambient_train.runs.precision import settled
    from ambient_train.training.world import choose_device

    def begun(settings: TrainSettings) -> bool:
        return cell_state(replace(cell, settings=settings), runs)[1] is not None

    return replace(cell, settings=settled(cell.settings, choose_device(device), begun))


def cell_state(cell: SweepCell, runs: Path) -> tuple[str, Path | None]:
    """`done`, `started` or `missing`, with its directory (None: nothing is there).

    The data are read only where manifests cannot tell. A distillation is missing as long as its teacher is not done.
    """
    every = in_each_precision(cell)
    if len(every) > 1:
        found_runs = [cell_state(one, runs) for one in every]
        return next((found for found in found_runs if found[1] is not None), found_runs[0])
    if cell.teacher is not None:
        state, run = cell_state(cell.teacher, runs)
        if state != "done" or run is None:
            return "missing", None
        cell = of_teacher(cell, run)
    found = find_run(runs, cell.settings)
    path = found.path
    if path is None and not found.certain:
        path = default_directory(runs, resolve_cell(cell))
    if path is None or not path.exists():
        return "missing", None
    return ("done" if is_scored(path, cell.settings.evaluation, cell.settings.schedule) else "started"), path


def of_teacher(cell: SweepCell, run: Path) -> SweepCell:
    """The cell with the run that it distills, as that was at the end of its own cell."""
    assert cell.teacher is not None
    at = cell.teacher.settings.schedule.duration_nimg
    train = replace(cell.settings.train, distill=str(run), distill_at=at)
    return replace(cell, settings=replace(cell.settings, train=train), teacher=None)


def run_cell(cell: SweepCell, runs: Path, device: str = "cpu", threads: int = 1) -> CellOutcome:
    """Run one cell to its end (or find it done), before it the cell that it distills, if that is not done.

    A user's or a data error becomes a failed outcome.
    """
    started = time.monotonic()
    path: Path | None = None
    asked = cell
    if cell.teacher is not None:
        first = run_cell(cell.teacher, runs, device, threads)
        if first.state != "done":
            return _without_teacher(asked, first)
        cell = of_teacher(cell, Path(first.directory))
    try:
        cell = in_settled_precision(cell, runs, device)
        state, path = cell_state(cell, runs)
        if state != "done" or path is None:
            job = resolve_cell(cell)
            path = default_directory(runs, job)
            scores = _train(cell, job, path, device, threads)
        else:
            found = stored_scores(path, cell.settings.evaluation)
            scores = {n: found[n] for n in cell.settings.schedule.scored}
    except BusyError as error:
        return CellOutcome(asked, "busy", str(path), message=str(error))
    except StoppedError as error:
        return CellOutcome(
            asked, "stopped", message=str(error), wall_s=time.monotonic() - started, exit_code=error.exit_code
        )
    except (AmbientError, OSError) as error:
        return CellOutcome(asked, "failed", message=str(error), wall_s=time.monotonic() - started)
    records = [replace(record, cell=cell.name) for at in scores.values() for record in at]
    return CellOutcome(asked, "done", str(path), records, wall_s=time.monotonic() - started)


def _train(cell: SweepCell, job: Job, path: Path, device: str, threads: int) -> dict[int, list[Record]]:
    import torch

    from ambient_train.runs import run
    from ambient_train.training.world import World, choose_device

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    options = RunOptions(device=device, keep_checkpoints=1, samples_nimg=0)
    details = {"cell": cell.name, **asked_details(cell.settings)}
    return run.execute(job, path, options, world=World(device=choose_device(device)), details=details)


def run_sweep(
    grid: Grid,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    threads: int = 1,
    listener: Callable[[CellOutcome, int, int], None] | None = None,
    more: Callable[[CellOutcome], Sequence[SweepCell]] = lambda outcome: (),
) -> list[CellOutcome]:
    """All cells of a grid, `workers` at a time, in separate processes if more than one; outcomes in grid order.

    more: asked after each cell what else to run, for sweeps whose cells depend on what was found; these cells come
    after the grid's, in the order in which they were asked for.
    Failed cells do not stop the others. SIGINT and SIGTERM reach the workers, which save; the outcome is then
    `stopped`, and the same call continues.
    """
    outcomes: dict[int, CellOutcome] = {}
    heard: list[int] = []
    broken = False  # a pool that lost a process takes nothing more
    cells = list(grid.cells)

    def finished(index: int, outcome: CellOutcome) -> list[tuple[int, SweepCell]]:
        """Note the outcome; the cells to run because of it, with their places."""
        outcomes[index] = outcome
        new = [] if heard or broken or outcome.state == "stopped" else list(more(outcome))
        cells.extend(new)
        if listener:
            listener(outcome, len(outcomes), len(cells))
        return list(enumerate(new, len(cells) - len(new)))

    waiting = _waiting(grid)
    if workers <= 1:
        queue = collections.deque(enumerate(cells))
        while queue:
            index, cell = queue.popleft()
            first = outcomes.get(waiting.get(index, -1))
            if first is not None and first.state == "failed":
                finished(index, _without_teacher(cell, first))
                continue
            outcome = run_cell(cell, runs, device, threads)
            if outcome.state == "busy":
                if all(i not in outcomes and _is_busy(c, runs) for i, c in queue):
                    _wait(Path(outcome.directory))
                queue.append((index, cell))
                continue
            queue.extend(finished(index, outcome))
            if outcome.state == "stopped":
                break
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
            futures = {
                pool.submit(run_cell, cell, runs, device, threads): i
                for i, cell in enumerate(cells)
                if i not in waiting
            }
            previous = {s: signal.signal(s, _forward(pool, heard)) for s in EXIT_CODES}
            try:
                while futures:
                    future = next(concurrent.futures.as_completed(futures))
                    index = futures.pop(future)
                    try:
                        outcome = future.result()
                    except concurrent.futures.CancelledError:
                        outcome = CellOutcome(cells[index], "stopped", message="not started")
                    except concurrent.futures.process.BrokenProcessPool:
                        state, broken = "stopped" if heard else "failed", True
                        outcome = CellOutcome(cells[index], state, message="its process was killed")
                    if outcome.state == "stopped" and heard:
                        outcome.exit_code = EXIT_CODES[signal.Signals(heard[0])]
                    if outcome.state == "busy":
                        if not futures:
                            _wait(Path(outcome.directory))
                        futures[pool.submit(run_cell, cells[index], runs, device, threads)] = index
                        continue
                    for place, cell in finished(index, outcome):
                        futures[pool.submit(run_cell, cell, runs, device, threads)] = place
                    if outcome.state == "stopped":
                        pool.shutdown(wait=False, cancel_futures=True)
                        continue
                    for next_one in [i for i, teacher in waiting.items() if teacher == index and not heard]:
                        del waiting[next_one]
                        if outcome.state == "failed":
                            finished(next_one, _without_teacher(grid.cells[next_one], outcome))
                            continue
                        futures[pool.submit(run_cell, grid.cells[next_one], runs, device, threads)] = next_one
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
    return [outcomes[i] for i in sorted(outcomes)]


def _without_teacher(cell: SweepCell, first: CellOutcome) -> CellOutcome:
    """What becomes of a distillation whose teacher is not done."""
    return replace(first, cell=cell, message=f"its teacher, {first.cell.label}: {first.message}", records=[])


def _waiting(grid: Grid) -> dict[int, int]:
    """Positions of the cells that distill another one of the grid, each with the position of that one."""
    places = {cell.label: i for i, cell in enumerate(grid.cells)}
    return {
        i: places[cell.teacher.label]
        for i, cell in enumerate(grid.cells)
        if cell.teacher is not None and cell.teacher.label in places
    }


def _is_busy(cell: SweepCell, runs: Path) -> bool:
    """Whether another process works on a cell, or on the one that it distills."""
    if cell.teacher is not None and _is_busy(cell.teacher, runs):
        return True
    _, path = cell_state(cell, runs)
    return path is not None and is_locked(path / "lock")


def _wait(directory: Path) -> None:
    """Until the other process is through with a run directory."""
    with exclusive_lock(directory / "lock", blocking=True):
        pass


def _worker() -> None:
    leave_with_parent()
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
