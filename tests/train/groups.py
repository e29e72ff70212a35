"""Groups of processes for tests: ranks from one fork server, one thread each, gloo on loopback."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ambient_train.training.launch import PRELOAD
from ambient_train.training.world import World, join_group

multiprocessing.set_forkserver_preload([*PRELOAD, "sklearn.datasets"])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _member(pipe: Connection, rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple) -> None:  # type: ignore[type-arg]
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        with join_group("cpu") as world:
            outcome = ("done", function(world, *arguments))
    except Exception as error:
        outcome = ("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    pipe.send(outcome)


def ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """What function(world, *arguments) gives on each of `size` ranks: ("done", value) or ("error", text).

    A rank that was killed gives ("died", exit code).
    """
    context = multiprocessing.get_context("forkserver")
    port, members = free_port(), []
    for rank in range(size):
        mine, theirs = context.Pipe()
        process = context.Process(target=_member, args=(theirs, rank, size, port, function, arguments))
        process.start()
        theirs.close()
        members.append((process, mine))
    outcomes: list[tuple[str, Any]] = []
    for process, pipe in members:
        wait([pipe, process.sentinel])
        try:
            outcomes.append(pipe.recv())
        except EOFError:
            process.join()
            outcomes.append(("died", process.exitcode))
    for process, _ in members:
        process.join()
    return outcomes


def values(outcomes: list[tuple[str, Any]]) -> list[Any]:
    """The values of ranks that all finished."""
    failed = [value for kind, value in outcomes if kind != "done"]
    assert not failed, str(failed[0])[-1500:]
    return [value for _, value in outcomes]


__all__ = ["World", "free_port", "ranks", "values"]
