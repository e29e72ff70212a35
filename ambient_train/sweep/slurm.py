"""Sweeps on a SLURM cluster, through submitit (extra `slurm`): jobs that pull the cells of one grid.

Every job is one worker. It goes through the whole grid in the shared folder of runs, passes over what is done, waits
for what another worker holds (the lock of a run directory), and so gives the outcome of every cell. Before the time
of a job is up SLURM sends it SIGUSR2: the training is saved, the job is queued again under its own number, and it
continues from there. submitit is imported only here, when it is used.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import PartialError, StoppedError, UsageError
from ambient_theory.shared.signals import EXIT_CODES, leave_alone
from ambient_train.settings.run_options import SlurmOptions
from ambient_train.sweep.grid import Grid, read_grid
from ambient_train.sweep.pool import CellOutcome, run_sweep
from ambient_train.sweep.report import SweepResult, check_folder, report, sweep_folder

SIGNAL_DELAY_S = 120
"""Seconds between SIGUSR2 and the end of a job: time to finish a step and to write a checkpoint."""

MAX_REQUEUES = 1000
"""A job that never ends is stopped after so many time limits."""

_BEST = {"stopped": 0, "failed": 1, "done": 2}


@dataclass(frozen=True)
class SweepWorker:
    """The callable that a job runs: one worker of a sweep, which can be queued again at any point.

    grid: as it was when the sweep was submitted. runs: shared folder of run directories, absolute.
    """

    grid: Grid
    runs: Path
    device: str = "auto"
    threads: int = 1

    def __call__(self) -> list[CellOutcome]:
        """Outcomes of all cells, in the order of the grid.

        A stop by SIGUSR2 is passed on, after saving, to the handler that the queue's side has installed: it calls
        `checkpoint` and queues the job again. SIGTERM is left to a handler of the queue's side, if there is one: queues
        send it to a job that they will start again, before or instead of SIGUSR2, and a job that leaves by itself is
        not started again. Raises StoppedError for any other signal, or without such handlers.
        """

        def listen(outcome: CellOutcome, done: int, total: int) -> None:
            detail = f" ({outcome.message})" if outcome.message else ""
            talk(f"[{done}/{total}] {outcome.cell.label}: {outcome.state}{detail}, {outcome.wall_s:,.0f} s")

        with contextlib.ExitStack() as stack:
            if callable(signal.getsignal(signal.SIGTERM)):
                stack.enter_context(leave_alone(signal.SIGTERM))
            outcomes = run_sweep(self.grid, self.runs, device=self.device, threads=self.threads, listener=listen)
        stopped = next((o for o in outcomes if o.state == "stopped"), None)
        if stopped is not None:
            asked_by_queue = stopped.exit_code == EXIT_CODES[signal.SIGUSR2]
            if asked_by_queue and callable(signal.getsignal(signal.SIGUSR2)):
                signal.raise_signal(signal.SIGUSR2)
            raise StoppedError(stopped.message, stopped.exit_code)
        return outcomes

    def checkpoint(self) -> Any:
        """What to run when the job is queued again: the same, since all that was done is in the run directories."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Submission:
    """Jobs that were submitted, and the folder of their logs."""

    grid: Grid
    jobs: Sequence[Any]
    logs: Path

    def to_dict(self) -> dict[str, Any]:
        return {"grid": self.grid.name, "jobs": [job.job_id for job in self.jobs], "logs": str(self.logs)}

    def show(self) -> None:
        for job in self.jobs:
            print(job.job_id)
        print(f"logs: {self.logs}")

    def outcomes(self, *, quiet: bool = False) -> list[CellOutcome]:
        """Wait for all jobs; what they say of every cell, the best where they differ, in the order of the grid.

        Cells of which no job says anything, because it was cancelled or lost, are left out. Raises PartialError if
        no job came to its end.
        """
        best: dict[tuple[str, int], CellOutcome] = {}
        lost: list[str] = []
        for job in self.jobs:
            error = job.exception()
            if error is not None:
                lost.append(_reason(error))
                talk(f"job {job.job_id} did not end well: {lost[-1]}; its log: {job.paths.stderr}", quiet=quiet)
                continue
            for outcome in job.result():
                key = (outcome.cell.name, outcome.cell.seed)
                if key not in best or _BEST[outcome.state] > _BEST[best[key].state]:
                    best[key] = outcome
        if len(lost) == len(self.jobs):
            raise PartialError(f"none of {len(lost)} jobs came to its end: see {self.logs}; last: {lost[-1]}")
        return [best[key] for cell in self.grid.cells if (key := (cell.name, cell.seed)) in best]


def _reason(error: BaseException) -> str:
    """The last line of the traceback that submitit quotes between dashes, else the first line of its message."""
    parts = [part.strip() for part in str(error).split("-" * 22)]
    return parts[1].splitlines()[-1] if len(parts) > 1 and parts[1] else parts[0].partition("\n")[0]


def slurm_executor(logs: Path, options: SlurmOptions, *, name: str, threads: int = 1) -> Any:
    """A submitit executor for these options. Raises UsageError without submitit, SLURM, or its signal."""
    try:
        submitit = importlib.import_module("submitit")
    except ImportError:
        raise UsageError(
            "--slurm needs the package submitit, which is not installed: pip install 'ambient-worth[slurm]'"
        ) from None
    if absent := [program for program in ("sbatch", "srun") if shutil.which(program) is None]:
        raise UsageError(f"--slurm needs {' and '.join(absent)} on the PATH: run it where SLURM jobs are submitted")
    if (chosen := submitit.JobEnvironment.USR_SIG) != "USR2":
        raise UsageError(f"SUBMITIT_PREEMPT_SIGNAL={chosen}: trainings are saved on USR2; unset the variable")
    _check_gpus(options)
    submitit.SlurmJob.watcher = _queue_watcher()
    executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=MAX_REQUEUES)
    wanted: dict[str, Any] = {
        "job_name": f"ambient-{name}",
        "partition": options.partition,
        "gpus_per_node": options.gpus or None,
        "time": options.minutes,
        "cpus_per_task": threads,
        "ntasks_per_node": 1,
        "signal_delay_s": SIGNAL_DELAY_S,
        "srun_args": [f"--cpus-per-task={threads}"],  # srun does not take it over from sbatch since SLURM 22.05
        "additional_parameters": {"requeue": True},
    }
    executor.update_parameters(**{key: value for key, value in wanted.items() if value is not None})
    return executor


def _check_gpus(options: SlurmOptions) -> None:
    """Raise UsageError for GPUs that no node of the partition has. Where sinfo fails, sbatch says."""
    if not options.gpus or shutil.which("sinfo") is None:
        return
    where = () if options.partition is None else ("--partition", options.partition)
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%G", *where], capture_output=True, text=True, check=False, timeout=60
    )
    resources = asked.stdout.split()
    if asked.returncode == 0 and resources and not any("gpu" in name for name in resources):
        place = "cluster" if options.partition is None else f"partition {options.partition}"
        raise UsageError(
            f"--slurm-gpus {options.gpus}, but sinfo knows no GPU in this {place}: add --slurm-gpus 0 to train on CPUs"
            f"{', or name a partition with GPUs (--slurm-partition)' if options.partition is None else ''}"
        )


_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


def read_queue(listing: str, jobs: Iterable[str]) -> dict[str, str]:
    """States from lines `JOB STATE` of squeue: RUNNING for what has not ended, ENDED for what squeue forgot."""
    states = dict(line.split()[:2] for line in listing.splitlines() if line.strip())
    known = {job: states.get(job, "ENDED") for job in jobs}
    return {job: state if state in (*_ENDED, "ENDED") else "RUNNING" for job, state in known.items()}


def _queue_watcher() -> Any:
    """What tells submitit how jobs stand: squeue, which needs no accounting (submitit itself asks sacct)."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        silent = False

        def update(self) -> None:
            command = ["squeue", f"--user={os.getuid()}", "--array", "--noheader", "--states=all", "--format=%i %T"]
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
            self._last_status_check = time.time()
            if asked.returncode:
                if not self.silent:
                    talk(
                        f"squeue does not answer ({asked.stderr.strip()}): the jobs are asked about again until it does"
                    )
                self.silent = True
                return
            self.silent = False
            states = read_queue(asked.stdout, self._registered)
            self._info_dict = {job: {"State": state} for job, state in states.items()}
            self._finished = {job for job in self._registered if self.is_done(job, mode="cache")}

    return QueueWatcher(delay_s=60)


def submit_sweep(
    executor: Any, grid: Grid, runs: Path, *, jobs: int = 1, device: str = "auto", threads: int = 1
) -> Submission:
    """Submit `jobs` workers (at most one a cell) to a submitit executor. Raises UsageError if the queue refuses."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    worker = SweepWorker(grid, runs.absolute(), device, threads)
    count = min(jobs, len(grid.cells))
    try:
        if count == 1:
            submitted = [executor.submit(worker)]
        else:
            submitted = executor.submit_array([worker] * count)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UsageError(f"sbatch refused the jobs: {str(error).strip()}") from error
    return Submission(grid, submitted, Path(executor.folder))


def submit_grid(
    path: Path, runs: Path, options: SlurmOptions, *, threads: int = 1, device: str = "auto", outdir: Path | None = None
) -> Submission:
    """Submit the workers of a grid file to SLURM; logs go to `slurm` beside the table. Raises UsageError, DataError."""
    grid = read_grid(path)
    where = sweep_folder(grid, runs, outdir)
    check_folder(where, grid)
    logs = where.absolute() / "slurm"
    executor = slurm_executor(logs, options, name=grid.name, threads=threads)
    return submit_sweep(executor, grid, runs, jobs=options.jobs, device=device, threads=threads)


def wait_for_grid(
    submission: Submission, runs: Path, *, outdir: Path | None = None, quiet: bool = False
) -> SweepResult:
    """Wait for the jobs, then write and return what `ambient sweep run` does in one process."""
    started = time.monotonic()
    outcomes = submission.outcomes(quiet=quiet)
    return report(submission.grid, outcomes, sweep_folder(submission.grid, runs, outdir), time.monotonic() - started)
