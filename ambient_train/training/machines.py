"""`--nodes N`: the machines of a group meet at one address, the one that has it is first, and a lost one may come back.

A handler for torch's elastic agent around its dynamic rendezvous (`DynamicRendezvousHandler`: members that send
heartbeats, rounds that complete when N are there). Added to it:

- whether this machine has the rendezvous address, and its own address, come from the route there, not from its name;
- its ranks are the first ones, and the ranks' store is a new one in each round, at an address that all can reach: a
  machine that comes back in a later round would otherwise look for the store of the first;
- who is awaited is said, and for how long; what ends the wait, or a machine that has fallen silent, is a sentence.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import socket
import threading
import time
from typing import Any

from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousGracefulExitError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, create_handler

from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import UsageError
from ambient_train.settings.run_options import LaunchOptions
from ambient_train.training.addresses import Route, answers, route_to
from ambient_train.training.meeting import MeetingError, join_store, minutes, saying

BACKEND = "ambient"

HEARTBEAT_S, SILENT_HEARTBEATS = 5, 12
"""A machine sends a heartbeat every 5 s and is lost after 60 s of silence; clocks must agree better than that."""

STORE_S = 60.0
"""How long the rendezvous store may take for one answer, in seconds: then its machine is lost."""


_given_up: list[DynamicRendezvousHandler] = []
"""Kept, since torch's heartbeat, which may still wait for the broken line, cannot end in the thread that drops it."""


class _Watch(threading.Thread):
    """Looks at the group every second, in a thread of its own: on a broken line torch's store waits for the kernel."""

    def __init__(self, inner: DynamicRendezvousHandler):
        super().__init__(daemon=True)
        self._inner, self._over = inner, threading.Event()
        self._failure: Exception | None = None
        self._waiting, self._heard = 0, time.monotonic()
        self.start()

    def run(self) -> None:
        while not self._over.wait(1.0):
            try:
                self._waiting = self._inner.num_nodes_waiting()
            except Exception as error:
                self._failure = error
                return
            self._heard = time.monotonic()

    def waiting(self) -> int:
        """Machines that wait. Raises what the last look raised, RendezvousConnectionError if it lasts too long."""
        if self._failure is not None:
            raise self._failure
        if time.monotonic() - self._heard > STORE_S:
            raise RendezvousConnectionError(f"no answer for {STORE_S:g} s")
        return self._waiting

    def stop(self) -> None:
        self._over.set()


class Machines(RendezvousHandler):
    """The group of machines as one of them sees it.

    inner: torch's handler on the store at the rendezvous address. serves: whether this process keeps that store.
    address: by which the others reach this machine.
    """

    def __init__(self, inner: DynamicRendezvousHandler, options: LaunchOptions, *, serves: bool, address: str):
        self._inner, self._options, self._serves, self._address = inner, options, serves, address
        self._members: set[Any] = set()
        self._met = False
        self._losses_left = options.max_restarts
        self._watch: _Watch | None = None

    @property
    def use_agent_store(self) -> bool:
        """The ranks keep their own store, on the first machine."""
        return False

    def get_backend(self) -> str:
        return BACKEND

    def get_run_id(self) -> str:
        return self._inner.get_run_id()

    def is_closed(self) -> bool:
        return self._inner.is_closed()

    def set_closed(self) -> None:
        self._inner.set_closed()

    def shutdown(self) -> bool:
        """Close the group, so that nobody joins it any more, unless this machine is not in it or cannot reach it."""
        self._unwatch()
        if not self._met:
            return True
        if not answers(*self._options.endpoint):
            _given_up.append(self._inner)
            return True
        return self._inner.shutdown()

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait until all machines are here. Raises MeetingError, RendezvousConnectionError if the address is gone."""
        where = self._options.rendezvous
        self._unwatch()
        if not answers(*self._options.endpoint):
            raise RendezvousConnectionError(f"no answer from {where}")
        self._met = False
        try:
            with saying(self._awaited):
                info = self._inner.next_rendezvous()
        except RendezvousTimeoutError:
            raise MeetingError(
                f"{self._came()} came to {where} within {minutes(self._options.rendezvous_timeout_s)}: start the same "
                "command on every machine; the run continues from its last checkpoint"
            ) from None
        except (RendezvousClosedError, RendezvousGracefulExitError):
            raise MeetingError(
                f"the group at {where} has ended on another machine: see its output there; the same command on every "
                "machine continues"
            ) from None
        self._members, self._met = set(self._inner_state().participants), True
        self._watch = _Watch(self._inner)
        return self._in_order(info)

    def num_nodes_waiting(self) -> int:
        """How many machines wait for a new round; also 1 where a silent one must be waited for.

        Raises MeetingError for a silent machine that no restart is left for.
        """
        assert self._watch is not None
        waiting = self._watch.waiting()
        lost = self._members - set(self._inner_state().participants)
        if waiting or not lost:
            return waiting
        silent = "this machine" if self._inner._this_node in lost else _names(lost)
        sentence = f"{silent} has not been heard of for {minutes(HEARTBEAT_S * SILENT_HEARTBEATS)}"
        if not self._losses_left:
            raise MeetingError(
                f"{sentence}: the same command on every machine continues from the last checkpoint (--max-restarts "
                "waits for its return)"
            )
        self._losses_left -= 1
        talk(f"{sentence}: the group starts again when it is back")
        return 1

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _in_order(self, info: RendezvousInfo) -> RendezvousInfo:
        """Ranks that begin on the machine of the rendezvous, and the address of a new store there."""
        store = PrefixStore("machines", info.store)
        try:
            store.set(f"serves/{info.rank}", str(int(self._serves)))
            serves = [store.get(f"serves/{k}") == b"1" for k in range(info.world_size)]
            first = serves.index(True) if True in serves else 0
            rank = 0 if info.rank == first else info.rank + int(info.rank < first)
            place = RendezvousStoreInfo.build(rank, store, local_addr=self._address)
        except RuntimeError as error:
            raise RendezvousConnectionError(f"a machine left while the group formed: {error}") from error
        return RendezvousInfo(info.store, rank, info.world_size, place)

    def _inner_state(self) -> Any:
        return self._inner._state_holder.state

    def _here(self) -> set[Any]:
        state = self._inner_state()
        return {*state.participants, *state.wait_list, self._inner._this_node}

    def _came(self) -> str:
        """How many machines are here, and which."""
        here = self._here()
        return f"{len(here)} of {self._options.nodes} machines ({_names(here)})"

    def _awaited(self) -> str:
        state, options = self._inner_state(), self._options
        at = f"{options.rendezvous}{', which is this machine' if self._serves else ''}"
        if self._inner._this_node in state.redundancy_list:
            return (
                f"all {options.nodes} machines are at {at} already ({_names(state.participants)}): this one waits to "
                "take the place of one that is lost"
            )
        if len(self._here()) >= options.nodes:
            return ""
        return (
            f"{self._came()} came to {at}: waiting for the others, for at most "
            f"{minutes(options.rendezvous_timeout_s)}; start the same command there"
        )


def _names(nodes: Any) -> str:
    return ", ".join(sorted(node.addr for node in nodes))


def _route(options: LaunchOptions) -> Route:
    """The way to the rendezvous, waited for where there is none: an interface may come back."""
    host, limit_s = options.endpoint[0], options.rendezvous_timeout_s
    deadline, why = time.monotonic() + limit_s, ""
    with saying(lambda: f"waiting for a way to {host}, for at most {minutes(limit_s)} ({why})"):
        while True:
            try:
                return route_to(host)
            except OSError as error:
                why = error.strerror or str(error)
                unknown = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
                if unknown or time.monotonic() > deadline:
                    raise UsageError(
                        f"--rendezvous {options.rendezvous}: this machine finds no way to {host} ({why}): give an "
                        "address of the machine that keeps it"
                    ) from None
            time.sleep(1.0)


def _machines(parameters: RendezvousParameters) -> Machines:
    """The handler of this machine, once the rendezvous address answers. Raises MeetingError, UsageError."""
    options: LaunchOptions = parameters.get("options")
    host, port = options.endpoint
    route = _route(options)
    store = None
    if route.here:
        with contextlib.suppress(UsageError):  # another command of this machine may keep the store already
            store = join_store("localhost", port, serve=True, limit_s=STORE_S)
    serves = store is not None
    if store is None:
        store = join_store(host, port, serve=False, limit_s=options.rendezvous_timeout_s)
    store.set_timeout(datetime.timedelta(seconds=STORE_S))
    parameters.local_addr = f"{socket.gethostname()} at {route.local}"
    inner = create_handler(store, C10dRendezvousBackend(store, parameters.run_id), parameters)
    return Machines(inner, options, serves=serves, address=host if route.here else route.local)


def rendezvous_settings(options: LaunchOptions) -> dict[str, Any]:
    """What torch's LaunchConfig needs so that the machines of `options` meet through this module."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # the inner handler's ranks have no store of its own either
    configs = {
        "options": options,
        "join_timeout": math.ceil(options.rendezvous_timeout_s),
        "keep_alive_interval": HEARTBEAT_S,
        "keep_alive_max_attempt": SILENT_HEARTBEATS,
    }
    return {"rdzv_backend": BACKEND, "rdzv_endpoint": options.rendezvous, "rdzv_configs": configs}


rendezvous_handler_registry.register(BACKEND, _machines)
