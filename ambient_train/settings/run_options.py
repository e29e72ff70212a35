"""What a run may change without becoming another one: how long, where, and with how many processes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, check_at_default, option

ON_NAN = ("stop", "rollback")

_SCHEDULE, _MACHINE, _RUN, _SLURM = "Duration and scores", "Machine and processes", "Run", "Cluster (SLURM)"


@dataclass(frozen=True, kw_only=True)
class Schedule(Checked):
    """Until when a run trains and where it is scored on the way, in images."""

    duration_nimg: int = option(
        200_000,
        "Images to train on: 200000, 200k, 1.5M; may grow later",
        at_least=1,
        form="images",
        flag="--duration",
        shown_default="by preset",
        panel=_SCHEDULE,
    )
    score_at: tuple[int, ...] = option(
        (),
        "Also score after so many images: 50k,100k",
        form="image-list",
        shown_default="at the end only",
        panel=_SCHEDULE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 1 <= n <= self.duration_nimg for n in self.score_at):
            raise UsageError(f"score_at {list(self.score_at)} must lie between 1 and the duration {self.duration_nimg}")

    @property
    def scored(self) -> tuple[int, ...]:
        """All points at which the run is scored, the end last."""
        return tuple(sorted({*self.score_at, self.duration_nimg}))


@dataclass(frozen=True, kw_only=True)
class RunOptions(Checked):
    """What changes neither the weights nor the scores of a run."""

    score: bool = option(
        True,
        "Score the run; without, it is trained only, and the same command without --no-score scores it",
        panel=_SCHEDULE,
    )

    device: str = option("auto", "auto, cpu, cuda or cuda:N", panel=_MACHINE)
    micro_batch: int | None = option(
        None,
        "Images at once (gradient accumulation)",
        at_least=1,
        shown_default="a process's whole share of the batch",
        panel=_MACHINE,
    )
    compile: bool = option(False, "Use torch.compile", panel=_MACHINE)
    deterministic: bool = option(
        False,
        "On a GPU use only operations that give the same bits every time, so that a run that is continued is bit-equal "
        "there as it is on a CPU; slower, and with --compile as far as the compiler keeps to it",
        panel=_MACHINE,
    )
    recompute: bool = option(
        False,
        "Recompute activations in the backward pass instead of keeping them: a quarter to a third more time for a "
        "fifth to a ninth of their memory, and the same numbers to the bit; for EDM's networks",
        panel=_MACHINE,
    )
    shard: bool = option(
        False, "Split the weights over the processes (FSDP2), for networks too big for one", panel=_MACHINE
    )
    checkpoint_nimg: int = option(
        0,
        "Images between checkpoints",
        at_least=0,
        form="images",
        flag="--checkpoint-every",
        shown_default="a tenth of the duration",
        panel=_RUN,
    )
    keep_checkpoints: int = option(
        2, "Newest checkpoints to keep beside the scored ones, 0 = all", at_least=0, panel=_RUN
    )
    tick_nimg: int = option(
        0,
        "Images between lines of metrics",
        at_least=0,
        form="images",
        flag="--tick",
        shown_default="a fiftieth of the duration",
        panel=_RUN,
    )
    samples_nimg: int | None = option(
        None,
        "Images between grids of samples (samples/, 16 images of the averaged weights) while training, 0 = none",
        at_least=0,
        form="images",
        flag="--sample-every",
        shown_default="a tenth of the duration, but so rarely that the grids take about a hundredth of the time",
        panel=_RUN,
    )
    max_time_s: float | None = option(
        None,
        "Save and leave with exit code 75 after this time: 90s, 45m, 3h30m, 2d",
        above=0,
        form="time",
        flag="--max-time",
        shown_default="no limit",
        panel=_RUN,
    )
    on_nan: str = option(
        "stop",
        "When a batch gives a NaN: stop, or go back to the last checkpoint and pass over the batch",
        choices=ON_NAN,
        panel=_RUN,
    )
    max_rollbacks: int = option(10, "With --on-nan rollback: at most so many batches", at_least=0, panel=_RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on_nan != "rollback":
            check_at_default(
                self, ("max_rollbacks",), "without --on-nan rollback does nothing: add it, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(Checked):
    """How many processes a command starts, and with which other machines."""

    nproc: int = option(1, "Processes on this machine, one a GPU (or CPU share)", at_least=1, panel=_MACHINE)
    max_restarts: int = option(
        0, "With --nproc: start the processes again so many times if one dies", at_least=0, panel=_MACHINE
    )
    nodes: int = option(1, "Machines that run this command together", at_least=1, panel=_MACHINE)
    rendezvous: str = option(
        "",
        "With --nodes: HOST:PORT on one of them, the same on every machine; the first process runs there",
        panel=_MACHINE,
    )
    rendezvous_timeout_s: float = option(
        600.0,
        "With --nodes: how long to wait for the other machines, at the start and after one was lost: 90s, 45m",
        at_least=1,
        form="time",
        flag="--rendezvous-timeout",
        shown_default="10m",
        panel=_MACHINE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes > 1 and not self.rendezvous:
            raise UsageError("--nodes needs --rendezvous HOST:PORT, the same on every machine")
        if self.nodes == 1:
            one = "is for several machines: add --nodes, or leave it out"
            check_at_default(self, ("rendezvous", "rendezvous_timeout_s"), one)
            if self.nproc == 1:
                check_at_default(self, ("max_restarts",), "starts processes again: add --nproc, or leave it out")
        if self.rendezvous:
            self.endpoint  # noqa: B018, it checks

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of `rendezvous`; an IPv6 address stands in brackets."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]+)):(\d{1,5})", self.rendezvous)
        if match is None or not 0 < int(match[3]) < 2**16:
            raise UsageError(f"--rendezvous {self.rendezvous!r}: give HOST:PORT, such as node0:29500 or [::1]:29500")
        return match[1] or match[2], int(match[3])


@dataclass(frozen=True, kw_only=True)
class PoolOptions(Checked):
    """How the trainings of a sweep share a machine; no record depends on it."""

    workers: int = option(1, "Trainings at a time, one process each", at_least=1, panel=_MACHINE)
    threads: int = option(1, "CPU threads of each training", at_least=1, panel=_MACHINE)
    device: str = option("auto", "cpu, cuda or auto", panel=_MACHINE)


LEAST_MINUTES = 5


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(Checked):
    """What a job of a cluster asks for. Raises UsageError for what SLURM would refuse or leaves no time to save."""

    partition: str | None = option(
        None,
        "With --slurm: partition of the jobs",
        flag="--slurm-partition",
        shown_default="the cluster's",
        panel=_SLURM,
    )
    gpus: int = option(
        1,
        "With --slurm: GPUs of each job, 0 = none; a training uses one",
        at_least=0,
        flag="--slurm-gpus",
        panel=_SLURM,
    )
    minutes: int = option(
        240,
        "With --slurm: time limit of a job in minutes, after which it is queued again; the last minutes are for saving",
        at_least=LEAST_MINUTES,
        flag="--slurm-time",
        panel=_SLURM,
    )
    jobs: int = option(
        1,
        "With --slurm: jobs, one training at a time each",
        at_least=1,
        flag="--slurm-jobs",
        shown_default="--workers",
        panel=_SLURM,
    )


def process_share(batch: int, processes: int, micro_batch: int | None) -> tuple[int, int]:
    """(images of a batch on one process, images at once there). Raises UsageError where something does not divide."""
    if batch % processes:
        raise UsageError(f"batch {batch} does not divide into {processes} processes")
    share = batch // processes
    at_once = micro_batch or share
    if share % at_once:
        raise UsageError(f"micro-batch {at_once} does not divide a process's share of {share} images")
    return share, at_once
