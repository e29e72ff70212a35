"""What a step asks of a device, counted on a CPU: tensors that would lie on the device are marked, and so is all that
is made of them.

A marked tensor that is read by the host (`item`, `tolist`, `cpu`, `float`, `bool`, `nonzero`, ...) is a
synchronisation; an operation on one that is no view is a launch; bytes are those that `placed.sent` sends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ambient_train.data.mixture import TrainingSet
from ambient_train.data.placed import Placed
from ambient_train.training import batches, loop
from ambient_train.training.state import TrainState

_ASKING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}
_READING = ("tolist", "numpy", "cpu", "__array__")


@dataclass
class Counts:
    syncs: int = 0
    launches: int = 0
    sent_bytes: int = 0


class Device(TorchDispatchMode):
    """The marks and the counts so far."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.lasting: Callable[[], Any] = list
        self._held: dict[int, Tensor] = {}

    def mark(self, value: Any) -> None:
        for t in tree_leaves(value):
            if isinstance(t, Tensor) and t.untyped_storage().nbytes():
                self._held.setdefault(t.untyped_storage().data_ptr(), t.detach())  # held: no address is used twice

    def forget(self, *more: Any) -> None:
        """Between two steps: only what lasts stays marked, and held."""
        self._held.clear()
        self.mark([self.lasting(), more])

    def there(self, value: Any) -> bool:
        return any(isinstance(t, Tensor) and t.untyped_storage().data_ptr() in self._held for t in tree_leaves(value))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if self.there((args, kwargs)):
            name = function.name().partition(".")[0]
            asks_which = name in ("aten::index", "aten::index_put_") and any(
                isinstance(t, Tensor) and t.dtype == torch.bool for t in tree_leaves(args[1])
            )
            alias = [r.alias_info for r in function._schema.returns]
            if name in _ASKING or asks_which:
                self.counts.syncs += 1
            elif not any(a is not None and not a.is_write for a in alias):
                self.counts.launches += 1
            self.mark(out)
        return out


@contextlib.contextmanager
def watched(state: TrainState, data: TrainingSet) -> Iterator[Device]:
    """Training inside behaves as on a GPU, with state and data on it, and is counted."""
    device, cpu = Device(), torch.device("cpu")
    before = {name: getattr(Tensor, name) for name in _READING}
    sent, as_they_are = batches.sent, loop.AS_THEY_ARE

    def reading(name: str) -> Any:
        def read(self: Tensor, *args: Any, **keywords: Any) -> Any:
            device.counts.syncs += device.there(self)
            return before[name](self, *args, **keywords)

        return read

    def sending(_: torch.device, *vectors: Tensor) -> list[Tensor]:
        copies = [v.clone() for v in vectors]
        device.mark(copies)
        device.counts.sent_bytes += sum(v.nbytes for v in vectors)
        return copies

    placed = Placed(data, cpu, resident=True, kept_bytes=2**30)
    for name, value in vars(placed).items():
        if isinstance(value, Tensor):
            setattr(placed, name, value.clone())  # on a CPU the set itself would be marked
    device.lasting = lambda: [
        [v for v in vars(placed).values() if isinstance(v, Tensor)],
        [list(state.network.parameters()), list(state.network.buffers()), list(state._ema.shadow.values())],
        [state.errors.state(), [list(s.values()) for s in state.optimizer.state.values()]],
    ]
    device.mark(device.lasting())
    data.__dict__.setdefault("_places", {})[cpu] = placed
    try:
        for name in _READING:
            setattr(Tensor, name, reading(name))
        batches.sent = sending
        loop.AS_THEY_ARE = batches.Keyed(augment=batches._augment_without_asking)
        with device:
            yield device
    finally:
        batches.sent, loop.AS_THEY_ARE = sent, as_they_are
        data.__dict__["_places"].pop(cpu, None)
        for name, method in before.items():
            setattr(Tensor, name, method)


def of_a_step(state: TrainState, data: TrainingSet, **options: Any) -> Counts:
    """Counts of the fourth step: three before it set up what a first step sets up."""
    batch, begun = state.config.batch, state.nimg
    with watched(state, data) as device:
        for end in loop.train(state, data, begun + 4 * batch, late=True, **options):
            device.forget(end.step.numbers._host)
            if end.nimg == begun + 3 * batch:
                device.counts = Counts()
            if end.nimg == begun + 4 * batch:
                return device.counts
    raise AssertionError("no fourth step")
