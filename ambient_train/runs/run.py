"""A training from its config to its scores: locked, resumed where it stopped, scored at each asked point.

What is on disk: `run_directory`. What happens between two files: `session`.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ambient_theory.shared.errors import BusyError, DataError
from ambient_theory.shared.files import exclusive_lock
from ambient_theory.shared.progress import Listener, ignore
from ambient_theory.shared.records import Record
from ambient_theory.shared.signals import SAME_SIGNAL_S, graceful_stop
from ambient_train.networks.execution import arithmetic, recompute_blocks
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.loggers import Logger
from ambient_train.runs.resolve import Job
from ambient_train.runs.score import check_features
from ambient_train.runs.session import Session
from ambient_train.settings.run_options import RunOptions, process_share
from ambient_train.training.distillation import check_sharding
from ambient_train.training.state import build_network
from ambient_train.training.world import World

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def execute(
    job: Job,
    path: Path,
    options: RunOptions | None = None,
    *,
    world: World | None = None,
    listener: Listener = ignore,
    talk: Callable[[str], None] = lambda message: None,
    details: Mapping[str, Any] | None = None,
    loggers: Sequence[Logger] = (),
) -> dict[int, list[Record]]:
    """Train (or continue, or find it done) and score at each point of the job's schedule; the scores by image count,
    of those points that are scored: with `options.score` off none are added.

    In a group of processes every rank calls this with the same arguments; only the leader touches `path`. What cannot
    work is refused before anything is written there: a batch that does not divide, a network without blocks to
    recompute, a directory of another run, images that cannot be read, the held-out ones included, features for the
    scores that are not at hand.
    Raises UsageError for another config or a second process on the directory, DataError where no checkpoint holds or
    the disk is full, DivergedError, and StoppedError after saving when a signal or the time limit asks to leave; in a
    group the same error on every rank.
    """
    world, options = world or World(), options or RunOptions()
    directory = RunDirectory(path, loggers)
    started = time.monotonic()
    process_share(job.config.batch, world.size, options.micro_batch)
    if options.recompute:
        with torch.device("meta"):
            recompute_blocks(build_network(job.config, job.shape, job.label_dim))
    if job.teacher is not None:
        check_sharding(options.shard)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_full_disk(path))
        world.by_leader(lambda: directory.check(job.config))
        with world.together():
            data = job.training_set()
            job.check_references()
        before = world.by_leader(lambda: [int(n) for n in directory.scores(job.config, job.evaluation)])
        if options.score and not {*job.schedule.scored} <= {*before}:
            with world.together():
                check_features(job.evaluation, job.shape[0])
        stack.enter_context(sole_user(path, world))
        known = world.by_leader(lambda: _claim(directory, job, details or {}))
        scores = {int(n): [Record.from_dict(r) for r in records] for n, records in known.items()}
        missing = [n for n in job.schedule.scored if n not in scores]
        if not missing:
            return {n: scores[n] for n in job.schedule.scored}
        world.by_leader(lambda: _open(loggers, stack))
        exactly = ", deterministic" if options.deterministic else ""
        world.by_leader(lambda: directory.log(f"precision {job.config.precision} on {world.device.type}{exactly}"))
        stack.enter_context(arithmetic(job.config.precision, deterministic=options.deterministic))
        stop = stack.enter_context(graceful_stop(SAME_SIGNAL_S if world.size > 1 else 0.0))
        session = Session(job, data, directory, options, world, stop, started, listener, talk)
        for target in missing:
            session.train_to(target)
            if options.score:
                scores[target] = session.score(target)
        return {n: scores[n] for n in job.schedule.scored if n in scores}


def _open(loggers: Sequence[Logger], stack: contextlib.ExitStack) -> None:
    for logger in loggers:
        stack.enter_context(logger)


def _claim(directory: RunDirectory, job: Job, details: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Claim the directory; what is scored already, as JSON."""
    directory.claim(job, details)
    return {
        str(n): [r.to_dict() for r in records] for n, records in directory.scores(job.config, job.evaluation).items()
    }


@contextlib.contextmanager
def sole_user(path: Path, world: World) -> Iterator[None]:
    """The leader holds the lock of the run directory for the group. Raises BusyError if another process has it."""
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            if not stack.enter_context(exclusive_lock(path / "lock")):
                raise BusyError(f"{path} is in use by another process: wait for it, or choose another --outdir")

        world.by_leader(lock)
        yield


@contextlib.contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Say what a full disk means for the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DataError(
            f"{path}: {error.strerror}: what was saved before is intact; make room, then the same command continues"
        ) from None
