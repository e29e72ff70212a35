"""The few things that training needs from a group of processes; one process is the same code with size 1."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from torch import Tensor


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
            if tensor.device.type != self.device.type and self.device.type == "cuda":
                moved = tensor.to(self.device)
                torch.distributed.all_reduce(moved)
                tensor.copy_(moved)
            else:
                torch.distributed.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()

    def part(self, items: Tensor) -> Tensor:
        """This rank's contiguous part of a global batch (the length must divide by the size)."""
        share = len(items) // self.size
        return items[self.rank * share : (self.rank + 1) * share]


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`. Raises UsageError if it is not available."""
    from ambient_theory.errors import UsageError

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but no CUDA device is available: use --device cpu")
    return device
