"""How the processes of a group find each other: at one store, within a stated time, saying for whom they wait.

Each rank writes the address by which it reaches the store, and waits until all have written theirs. gloo, which would
ask the machine's name for an address, is given the interface of that route instead (unless GLOO_SOCKET_IFNAME is set).
NCCL looks for its interfaces itself.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import AmbientError, UsageError, first_line
from ambient_train.training.addresses import answers, interface_of, route_to

MEETING_S = 600.0
"""How long the processes of a group wait for each other at the start, in seconds."""

SAID_AFTER_S, SAID_EVERY_S, _LOOK_S = 5.0, 60.0, 0.05


class MeetingError(AmbientError):
    """The processes or machines of a group did not find each other, or lost each other (exit code 1)."""


@contextlib.contextmanager
def saying(what: Callable[[], str]) -> Iterator[None]:
    """While the block waits, say what for: after SAID_AFTER_S, when it changes, and every SAID_EVERY_S."""
    over = threading.Event()

    def speak() -> None:
        said, at, pause = "", 0.0, SAID_AFTER_S
        while not over.wait(pause):
            try:
                text, now, pause = what(), time.monotonic(), 1.0
            except RuntimeError:  # the store is gone: whoever waits for it says so
                return
            if text and (text != said or now - at >= SAID_EVERY_S):
                talk(text)
                said, at = text, now

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()


def minutes(seconds: float) -> str:
    """A time in words: `10 min`, `45 s`."""
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def join_store(host: str, port: int, *, serve: bool, limit_s: float, quiet: bool = False) -> TCPStore:
    """The group's store at host:port, kept by this process (serve) or by another one, which is waited for.

    Raises MeetingError where nothing has answered within `limit_s`, or something else answers; UsageError where the
    port of this machine is taken.
    """
    limit = datetime.timedelta(seconds=limit_s)
    open_store = functools.partial(TCPStore, host, port, timeout=limit, multi_tenant=True, wait_for_workers=False)
    if serve:
        try:
            return open_store(is_master=True)
        except RuntimeError as error:
            raise UsageError(
                f"port {port} of this machine cannot be had ({first_line(error)}): choose another one"
            ) from None
    awaited = f"waiting for {host}:{port} to answer, for at most {minutes(limit_s)}: there the group meets"
    deadline = time.monotonic() + limit_s
    with saying(lambda: "" if quiet else awaited):
        while not answers(host, port):
            if time.monotonic() > deadline:
                raise MeetingError(
                    f"{host}:{port} did not answer for {minutes(limit_s)}: see whether the command runs there, and "
                    "whether this machine reaches that port"
                )
            time.sleep(_LOOK_S)
    try:
        return open_store(is_master=False)
    except RuntimeError as error:
        raise MeetingError(
            f"{host}:{port} answers, but not as a store of PyTorch ({first_line(error)}): another program has that "
            "port; choose another one"
        ) from None


def meet(store: Store, host: str, rank: int, size: int, *, limit_s: float, quiet: bool = False) -> None:
    """Wait until all ranks are at the store, and give gloo the interface that leads to the others.

    host: where the store is. quiet: somebody else on this machine says who is awaited. Raises MeetingError, which names
    the missing ranks, after `limit_s`.
    """
    route = route_to(host)
    store.set(f"address/{rank}", route.local)
    keys = [f"address/{k}" for k in range(size)]

    def missing() -> str:
        return ", ".join(str(k) for k, key in enumerate(keys) if not store.check([key]))

    def awaited() -> str:
        absent = "" if quiet else missing()
        return absent and (
            f"rank {rank} of {size} on {socket.gethostname()} ({route.local}) waits for rank {absent}, for at most "
            f"{minutes(limit_s)}"
        )

    deadline = time.monotonic() + limit_s
    with saying(awaited):
        while not store.check(keys):
            if time.monotonic() > deadline:
                raise MeetingError(f"rank {missing()} of {size} did not come within {minutes(limit_s)}: see its output")
            time.sleep(_LOOK_S)
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    if route.loopback:  # the store's machine may know itself by its loopback address: the others know it by another
        others = [store.get(key).decode() for key in keys]
        route = next((there for other in others if not (there := route_to(other)).loopback), route)
    if (interface := interface_of(route.local)) is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def connect(backend: str, store: Store, rank: int, size: int, *, limit_s: float, timeout: datetime.timedelta) -> None:
    """Make the process group of ranks that have met; timeout: of what they do together afterwards.

    Raises MeetingError where the ranks cannot reach each other within `limit_s`.
    """
    within = datetime.timedelta(seconds=limit_s)
    try:
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=within)
    except RuntimeError as error:
        raise MeetingError(
            f"rank {rank} of {size} met the others but cannot reach them through "
            f"{os.environ.get('GLOO_SOCKET_IFNAME', 'its network')} ({first_line(error)}): open the ports between the "
            "machines, or set GLOO_SOCKET_IFNAME to the interface that joins them"
        ) from None
    torch.distributed.distributed_c10d._set_pg_timeout(timeout)
