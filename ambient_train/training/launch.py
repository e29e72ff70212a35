"""`--nproc N`: the processes of a training, started and watched by torch.distributed's elastic agent in this process.

The ranks come from a fork server that has imported everything once. A rank that dies unexpectedly takes the others
with it; they are started again, from the newest checkpoint, up to `max_restarts` times. What a user can cause (a wrong
option, a NaN, a signal, the time limit) is not a failure of a rank: all ranks agree on it, return it, and this process
leaves with its exit code. Several machines run the same command with `nodes` and one `rendezvous`; torchrun and srun
work as well (see `distributed.join_group`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import get_spawning_popen
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import AmbientError, StoppedError, UsageError
from ambient_theory.shared.signals import EXIT_CODES, leave_on_signal
from ambient_train.settings.run_options import LaunchOptions
from ambient_train.training.machines import rendezvous_settings
from ambient_train.training.meeting import MeetingError
from ambient_train.training.world import choose_device, describe, revive

PRELOAD = ["ambient_train.tasks.train"]


class RankDiedError(AmbientError):
    """A process of the group was killed or failed unexpectedly, more often than restarts were allowed (exit code 1)."""


def launch(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    options: LaunchOptions,
    *,
    device: str = "auto",
) -> Any:
    """Run function(**arguments) in `options.nproc` processes on this machine and return what the first of them returns.

    Each process finds its place by `join_group`. function and arguments must be picklable (they go through a pipe to
    our own processes only). nodes: machines that take part, all with the same `rendezvous` (HOST:PORT on one of them),
    which may come back after a loss as often as `max_restarts` says. Raises the function's own AmbientError,
    RankDiedError, MeetingError, and StoppedError if a signal came; signals are forwarded.
    """
    nproc = options.nproc
    if choose_device(device).type == "cuda" and nproc > torch.cuda.device_count():
        raise UsageError(f"nproc {nproc}: this machine has {torch.cuda.device_count()} GPU(s)")
    multiprocessing.set_forkserver_preload(PRELOAD)
    _unreached_by_signals(resource_tracker.ensure_running)
    start = _Start(multiprocessing.get_context("forkserver").Event(), function, dict(arguments), nproc)
    with _forwarding(start) as heard:
        _start_server()
        if heard:
            raise _stopped(heard[0])
        left = options.max_restarts
        while True:
            try:
                outcomes = elastic_launch(_config(replace(options, max_restarts=left)), _rank)(start)
                break
            except ChildFailedError as error:
                if heard:
                    raise _stopped(heard[0]) from None
                raise _died(error, options) from None
            except RendezvousConnectionError:
                if options.nodes == 1:
                    raise
                if heard:
                    raise _stopped(heard[0]) from None
                if not left:
                    raise MeetingError(
                        f"{options.rendezvous} no longer answers: the same command on every machine continues from the "
                        "last checkpoint (--max-restarts waits for its return)"
                    ) from None
                left -= 1
                talk(f"{options.rendezvous} no longer answers: the group starts again when it is back")
    kind, value = outcomes[min(outcomes)]
    if kind == "stopped":
        raise _stopped(heard[0] if heard else signal.SIGTERM)
    if kind == "error":
        raise revive(value)
    return value


def _config(options: LaunchOptions) -> LaunchConfig:
    """The group as torch's elastic agent wants it: on one machine at an address of its own, else at the rendezvous."""
    if options.nodes > 1:
        meeting = rendezvous_settings(options)
        run_id = f"ambient-{options.rendezvous}"
    else:
        meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
        run_id = f"ambient-{uuid.uuid4().hex}"
    return LaunchConfig(
        min_nodes=options.nodes,
        max_nodes=options.nodes,
        nproc_per_node=options.nproc,
        run_id=run_id,
        max_restarts=options.max_restarts,
        start_method="forkserver",
        signals_to_handle="SIGHUP,SIGQUIT",
        **meeting,
    )


def _died(error: ChildFailedError, options: LaunchOptions) -> RankDiedError:
    rank, failure = error.get_first_failure()
    how = f"killed by {signal.Signals(-failure.exitcode).name}" if failure.exitcode < 0 else "failed"
    after = f" after {options.max_restarts} restart(s)" if options.max_restarts else ""
    cause = ", or another machine was lost" if options.nodes > 1 else ""
    return RankDiedError(
        f"process {rank} of the group was {how}{after}: its own message, if it had one, is above{cause}; the same "
        f"command{' on every machine' if cause else ''} continues from the last checkpoint (--max-restarts does so by "
        "itself)"
    )


def _stopped(number: int) -> StoppedError:
    name = signal.Signals(number).name
    return StoppedError(f"stopped by {name}; the same command continues", EXIT_CODES[signal.Signals(number)])


class _Start:
    """What a rank is given. Here it also knows which process of the group is being started: a signal in that moment
    must not end this process, since the new one still needs what this one holds for it (semaphores by name)."""

    def __init__(self, asked: Event, function: Callable[..., Any], arguments: dict[str, Any], nproc: int) -> None:
        self.asked, self.function, self.arguments, self.nproc = asked, function, arguments, nproc
        self._newest: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        self._newest = get_spawning_popen()
        return _Start, (self.asked, self.function, self.arguments, self.nproc)

    @property
    def under_way(self) -> bool:
        """Whether a process is being started and has no number yet."""
        return self._newest is not None and getattr(self._newest, "pid", None) is None


def _unreached_by_signals(start: Callable[[], None]) -> None:
    """Start a process that a signal to the whole group must not end before its time: it inherits what is blocked."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _start_server() -> None:
    """Start the fork server and wait until it has imported what the ranks need; a signal leaves here at once.

    The ranks are born as unreached by signals as it is, until they listen (`_rank`): what comes before is kept.
    """
    _unreached_by_signals(forkserver.ensure_running)
    first = multiprocessing.get_context("forkserver").Process(target=int)
    first.start()
    first.join()


def _rank(start: _Start) -> tuple[str, Any]:
    """What one process of the group does: ("done", result), ("error", described) or ("stopped", None)."""
    with leave_on_signal():
        if start.asked.is_set():  # started although the user wants to leave
            return "stopped", None
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // start.nproc))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
        try:
            return "done", start.function(**start.arguments)
        except MeetingError as error:  # perhaps another process's fault: it counts as a failure of this rank
            talk(f"ambient: {error}")
            raise SystemExit(error.exit_code) from None
        except AmbientError as error:
            return "error", describe(error)
        finally:
            sys.stdout.flush()


@contextlib.contextmanager
def _forwarding(start: _Start) -> Iterator[list[int]]:
    """Pass signals on to the ranks, which save and return; yields the signals that were heard.

    Where there is no rank yet, a signal leaves with StoppedError.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    others = set(multiprocessing.active_children())

    def handler(number: int, _: FrameType | None) -> None:
        heard.append(number)
        start.asked.set()
        ranks = [p for p in multiprocessing.active_children() if p not in others and p.pid is not None]
        for process in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)
        if not ranks and not start.under_way:
            raise SystemExit(EXIT_CODES[signal.Signals(number)])

    previous = {number: signal.signal(number, handler) for number in EXIT_CODES}
    try:
        yield heard
    except SystemExit:
        if not heard:
            raise
        raise _stopped(heard[0]) from None
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
