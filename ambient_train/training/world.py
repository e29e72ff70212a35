"""The few things that training needs from a group of processes; one process is the same code with size 1.

Only the leader reads and writes the run directory. What it finds there, and what goes wrong there, reaches the other
ranks as JSON and plain tensors (never as a pickle), so that all ranks take the same path and none waits for one that
has left.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from ambient_theory.shared import errors
from ambient_theory.shared.errors import AmbientError, StoppedError, UsageError
from ambient_train.training import meeting

T = TypeVar("T")
TIMEOUT = datetime.timedelta(hours=1)
"""How long a rank waits for the others, e.g. while the leader scores. A rank that dies is noticed at once."""


@dataclass(frozen=True)
class World:
    """rank and size of the group, and the device of this process."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag whether it is set on any rank."""
        return [bool(v > 0) for v in self.sum(torch.tensor([float(f) for f in flags])).tolist()]

    def part(self, items: Tensor) -> Tensor:
        """This rank's contiguous part of a global batch (the length must divide by the size)."""
        share = len(items) // self.size
        return items[self.rank * share : (self.rank + 1) * share]

    def padded_part(self, items: Sequence[int]) -> list[int]:
        """This rank's contiguous part of items of any number, the last ranks' filled up: equally many on each rank."""
        share = -(-len(items) // self.size)
        return [items[k % len(items)] for k in range(self.rank * share, (self.rank + 1) * share)]

    def gather(self, array: np.ndarray, count: int) -> np.ndarray:
        """The first `count` rows of all ranks' equally long arrays one after the other; empty except on the leader."""
        if self.size == 1:
            return array[:count]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        parts = [torch.empty_like(mine) for _ in range(self.size)] if self.leader else None
        torch.distributed.gather(mine, parts, dst=0)
        return torch.cat(parts)[:count].numpy() if parts is not None else array[:0]

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """The equally shaped tensors of all ranks, in the order of ranks."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(parts, tensor)
        return parts

    def by_leader(self, action: Callable[[], T]) -> T:
        """Let the leader do something; its result (JSON) or its error is everyone's."""
        if self.size == 1:
            return action()
        outcome: dict[str, Any] = {}
        failure: AmbientError | OSError | None = None
        if self.leader:
            try:
                outcome = {"value": action()}
            except (AmbientError, OSError) as error:
                failure, outcome = error, describe(error)
        outcome = self._share(outcome)
        if failure is not None:
            raise failure
        if "error" in outcome:
            raise revive(outcome)
        return outcome["value"]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What each rank does for itself: if it fails on any rank, the first failure is raised on all."""
        failure: AmbientError | OSError | None = None
        try:
            yield
        except (AmbientError, OSError) as error:
            if self.size == 1:
                raise
            failure = error
        if self.size == 1:
            return
        first = torch.tensor([self.rank if failure is not None else self.size])
        torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        source = int(first)
        if source < self.size:
            described = self._share(describe(failure) if failure is not None else {}, source)
            raise failure if failure is not None else revive(described)

    def share_tensors(self, groups: Mapping[str, Mapping[str, Tensor]] | None) -> dict[str, dict[str, Tensor]]:
        """The leader's named sets of CPU tensors, on every rank."""
        if self.size == 1:
            assert groups is not None
            return {group: dict(tensors) for group, tensors in groups.items()}
        layout: dict[str, Any] = {}
        if groups is not None and self.leader:
            for group, tensors in groups.items():
                layout[group] = {k: [str(t.dtype).removeprefix("torch."), list(t.shape)] for k, t in tensors.items()}
        layout = self._share(layout)
        out: dict[str, dict[str, Tensor]] = {}
        for group, entries in layout.items():
            out[group] = {}
            for name, (dtype, shape) in entries.items():
                if groups is not None and self.leader:
                    tensor = groups[group][name].contiguous()
                else:
                    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
                torch.distributed.broadcast(tensor, src=0)
                out[group][name] = tensor
        return out

    def _share(self, value: dict[str, Any], source: int = 0) -> dict[str, Any]:
        """A JSON object of one rank, on every rank."""
        text = json.dumps(value).encode() if self.rank == source else b""
        length = torch.tensor([len(text)])
        torch.distributed.broadcast(length, src=source)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source:
            data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        torch.distributed.broadcast(data, src=source)
        return json.loads(bytes(data.numpy()))


def describe(error: AmbientError | OSError) -> dict[str, Any]:
    """An error as JSON, for another process."""
    if isinstance(error, AmbientError):
        return {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    return {"error": "DataError", "message": f"{error.strerror or error} ({error.filename})", "exit_code": 3}


def revive(described: Mapping[str, Any]) -> AmbientError:
    """The error that `describe` described, with its exit code."""
    kind: Any = getattr(errors, described["error"], AmbientError)
    if kind is StoppedError:
        return StoppedError(described["message"], described["exit_code"])
    revived: AmbientError = kind(described["message"])
    revived.exit_code = described["exit_code"]
    return revived


def place_in_group() -> tuple[int, int, int] | None:
    """(rank, size, local rank) that torchrun or srun gave this process, None outside of both.

    Inside an sbatch script but not under srun there is one process: only the variables of a job step count.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0"))
    if "SLURM_PROCID" in env and "SLURM_STEP_NUM_TASKS" in env:
        return int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env.get("SLURM_LOCALID", "0"))
    return None


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: `gpu[03-07,11],login` gives `gpu03`."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if not match:
        raise UsageError(f"SLURM node list {nodes!r} names no host: set MASTER_ADDR")
    return match[1] + (match[2] or "") + (match[3] or "")


def _fresh_store(rank: int, quiet: bool) -> Store:
    """The group's key-value store, at MASTER_ADDR:MASTER_PORT. Under torchrun on one machine every start finds the same
    store, in which the addresses of the dead ranks still stand: each start has a name space of its own."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serve = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = meeting.join_store(address, port, serve=serve, limit_s=meeting.MEETING_S, quiet=quiet)
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextlib.contextmanager
def join_group(device: str = "auto") -> Iterator[World]:
    """The World of this process: of its torchrun, srun or `--nproc` group, else alone.

    The group speaks gloo between CPUs and NCCL between GPUs (gloo where ranks share a GPU). Raises UsageError for a
    device that ranks cannot share, MeetingError where the ranks do not find each other in time.
    """
    place = place_in_group()
    if place is None or place[1] == 1:
        yield World(device=choose_device(device))
        return
    rank, size, local = place
    if re.fullmatch(r"cuda:\d+", device):
        raise UsageError(f"--device {device} with {size} processes: give cuda, each process takes its own")
    os.environ["LOCAL_RANK"] = str(local)
    if "MASTER_ADDR" not in os.environ:
        alone = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"  # a node's name need not resolve on itself
        os.environ["MASTER_ADDR"] = "127.0.0.1" if alone else first_host(os.environ["SLURM_STEP_NODELIST"])
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(20_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20_000)
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = _backend(chosen)
    store = _fresh_store(rank, quiet=local > 0)
    meeting.meet(store, os.environ["MASTER_ADDR"], rank, size, limit_s=meeting.MEETING_S, quiet=local > 0)
    meeting.connect(backend, store, rank, size, limit_s=meeting.MEETING_S, timeout=TIMEOUT)
    try:
        yield World(rank, size, chosen)
    finally:
        torch.distributed.destroy_process_group()


def _backend(device: torch.device) -> str:
    """gloo also between GPUs where ranks of this machine share one, which NCCL refuses."""
    if device.type != "cuda":
        return "gloo"
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    return "cpu:gloo,cuda:gloo" if shared else "cpu:gloo,cuda:nccl"


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`. Without a number a process takes the GPU of its local rank.

    Raises UsageError if the device is not available.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but no CUDA device is available: use --device cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local % torch.cuda.device_count())
    return device


def shard(network: torch.nn.Module, world: World) -> None:
    """Split the weights over the ranks, block by block (FSDP2; Zhao et al. 2023, arXiv 2304.11277), in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if world.size == 1:
        raise UsageError("--shard splits a network over processes: give --nproc 2 or more")
    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in list(network.modules()):
        if type(module).__name__.endswith("Block"):
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split over ranks (every rank must call this)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """This rank's view of the full tensor `value`, split over ranks as `like` is."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    split: Any = like
    return distribute_tensor(value.to(like.device), split.device_mesh, split.placements, src_data_rank=None)
