"""Steps that the device was given and of which the host has not heard yet.

A step ends with a few numbers on the device. To read them at once would let the device run dry: it has nothing to do
while the host waits, and then until the next batch is on its way. So they are copied behind the step into pinned memory
and read one step later, when the device has the next forward and backward pass to do: that is the one time in a step at
which the host waits. By then the step has been taken only if its gradient was finite (`update` masks it on the device),
so that whatever the numbers say, nothing is spoiled.

In a group the losses of all ranks, and what asks to leave, are summed up every so many steps: so many as fit into
`AGREE_S` on GPUs, every step on CPUs, where the ranks wait for each other anyway.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ambient_train.training.world import World

AGREE_S = 1.0
"""Longest time between two agreements of a group of GPUs, as far as it is known beforehand."""
MOST_STEPS = 64


class Numbers:
    """float64 numbers of a device on their way to the host. Nobody waits until `read`."""

    def __init__(self, values: Sequence[Tensor]):
        there = torch.stack([v.detach().to(torch.float64).reshape(()) for v in values])
        self._arrived: torch.cuda.Event | None = None
        if there.device.type == "cuda":
            self._host = torch.empty(len(values), dtype=torch.float64, pin_memory=True)
            self._host.copy_(there, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._host = there

    def read(self) -> list[float]:
        """The numbers, when they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._host.tolist()
        return values


@dataclass(eq=False)
class Step:
    """One step in flight. nimg, first: images seen before it, and its first global sample index. seen: what it was
    made of, for blame. numbers: total (this rank's part of the loss), norm (of the global gradient), scale (of the loss
    in fp16), each once it is known. loss: mean over the global batch, per pixel, once the ranks have agreed."""

    nimg: int
    first: int
    numbers: Numbers
    seen: Sequence[Any] = ()
    total: float = math.nan
    norm: float = math.nan
    loss: float | None = None
    scale: float = 1.0


@dataclass(eq=False)
class Flight:
    """The steps of one call of `train` that the host has not settled. at_most_s: between two agreements of the ranks.

    land: called with a step when its numbers are read. count: called with it when its loss is known on all ranks, in
    order.
    """

    world: World
    per_image: int
    at_most_s: float
    land: Callable[[Step], bool]
    count: Callable[[Step], None]
    loss: float | None = None
    _aloft: Step | None = None
    _heard: list[Step] = field(default_factory=list)
    _steps: int = 0
    _every: int = 1
    _since: float = field(default_factory=time.monotonic)

    def launch(self, step: Step) -> None:
        """A step is on its way; the one before has landed."""
        assert self._aloft is None
        self._aloft = step
        self._steps += 1

    def settle(self) -> None:
        """Wait for the step that is aloft, if any. Raises what `land` raises: the state is as before that step."""
        step, self._aloft = self._aloft, None
        if step is None:
            return
        step.total, step.norm, *scale = step.numbers.read()
        step.scale = scale[0] if scale else 1.0
        if self.land(step):
            self._heard.append(step)
        step.seen = ()

    def due(self) -> bool:
        """Whether the ranks are to agree now: the same answer on every rank."""
        return self._steps >= self._every

    def agree(self, flags: Sequence[bool] = (), *, also: Step | None = None) -> tuple[bool, ...]:
        """Losses of the steps heard of, and of `also`, over all ranks; for each flag whether any rank set it.

        Every rank calls this after the same step.
        """
        steps = [*self._heard, *([] if also is None else [also])]
        now = time.monotonic()
        if self.world.size == 1:
            totals, votes = [s.total for s in steps], tuple(flags)
        elif steps or flags:
            sums = [*(s.total for s in steps), *map(float, flags), now - self._since]
            *sums, elapsed = self.world.sum(torch.tensor(sums, dtype=torch.float64)).tolist()
            totals, votes = sums[: len(steps)], tuple(v > 0 for v in sums[len(steps) :])
            if self._steps and flags:
                a_step = elapsed / self.world.size / self._steps
                self._every = max(1, min(MOST_STEPS, int(self.at_most_s / max(a_step, 1e-9))))
                self._steps, self._since = 0, now
        else:
            totals, votes = [], ()
        heard, self._heard = self._heard, []
        for step, total in zip(steps, totals, strict=True):
            step.loss = self.loss = total / self.per_image
        for step in heard:
            self.count(step)
        return votes

    def settle_all(self) -> None:
        """Settle what is aloft and know all losses. In a group every rank calls this after the same step."""
        self.settle()
        self.agree()
