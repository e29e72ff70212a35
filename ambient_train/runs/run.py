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

from ambient_theory.shared.errors import BusyError, DataError, UsageError
from ambient_theory.shared.files import exclusive_lock
from ambient_theory.shared.records import Record
from ambient_train.settings.config import TrainConfig
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.load import ImageSet
from ambient_train.training.world import World
from ambient_train.runs.loggers import Logger
from ambient_train.runs.directory import Listener, Progress, RunDirectory, RunOptions, default_directory
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.runs.session import Session
from ambient_train.training.signals import SAME_SIGNAL_S, graceful_stop

__all__ = [
    "Listener",
    "Progress",
    "RunDirectory",
    "RunOptions",
    "default_directory",
    "execute",
    "make_training_set",
]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_training_set(config: TrainConfig, source: ImageSet) -> TrainingSet:
    """The mixture of the config. Raises DataError if the images are not those of the config's data hash."""
    if config.data_hash and source.content_hash[:16] != config.data_hash:
        raise DataError(
            f"{config.data}: the images have changed (hash {source.content_hash[:16]}, the run has {config.data_hash})"
        )
    return corrupt(source, n_clean=config.n_clean, n_noisy=config.n_noisy, sigma=config.sigma, seed=config.seed)


def execute(
    config: TrainConfig,
    source: ImageSet,
    path: Path,
    options: RunOptions,
    evaluation: EvalConfig,
    *,
    world: World | None = None,
    listener: Listener | None = None,
    talk: Callable[[str], None] = lambda message: None,
    details: Mapping[str, Any] | None = None,
    loggers: Sequence[Logger] = (),
) -> dict[int, list[Record]]:
    """Train (or continue, or find it done) and score at each of `options.scored`; returns the scores by image count.

    In a group of processes every rank calls this with the same arguments; only the leader touches `path`.
    Raises UsageError for another config or a second process on the directory, DataError where no checkpoint holds or
    the disk is full, DivergedError, and StoppedError after saving when a signal or the time limit asks to leave; in a
    group the same error on every rank.
    """
    world = world or World()
    directory = RunDirectory(path, loggers)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_full_disk(path))
        stack.enter_context(_sole_user(path, world))
        known = world.by_leader(lambda: _claim(directory, config, evaluation, details or {}))
        scores = {int(n): [Record.from_dict(r) for r in records] for n, records in known.items()}
        missing = [n for n in options.scored if n not in scores]
        if not missing:
            return scores
        world.by_leader(lambda: _open(loggers, stack))
        with world.together():
            data = make_training_set(config, source)
            label_dim = int(source.labels.max()) + 1 if config.cond and source.labels is not None else 0
            if config.cond and label_dim == 0:
                raise UsageError(f"--cond needs labels, and {config.data} has none")
        stop = stack.enter_context(graceful_stop(SAME_SIGNAL_S if world.size > 1 else 0.0))
        session = Session(config, data, label_dim, directory, options, evaluation, world, stop, started, listener, talk)
        for target in missing:
            session.train_to(target)
            scores[target] = session.score(target)
        return {n: scores[n] for n in options.scored}


def _open(loggers: Sequence[Logger], stack: contextlib.ExitStack) -> None:
    for logger in loggers:
        stack.enter_context(logger)


def _claim(
    directory: RunDirectory, config: TrainConfig, evaluation: EvalConfig, details: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Claim the directory; what is scored already, as JSON."""
    directory.claim(config, details)
    return {str(n): [r.to_dict() for r in records] for n, records in directory.scores(config, evaluation).items()}


@contextlib.contextmanager
def _sole_user(path: Path, world: World) -> Iterator[None]:
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
