"""The factor on the loss in fp16: halved where a gradient overflows, doubled after a while without.

Half precision ends at 65,504 and has nothing between 0 and 6e-8 (Micikevicius et al. 2018, arXiv 1710.03740): a factor
on the loss lifts gradients out of the latter, and is too large where it drives one into the former. Such a step is not
taken. Factor and count are training state on the device, in a checkpoint, so that resume is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambient_train.settings.config import TrainConfig

FIRST, LEAST, MOST = 2.0**16, 1.0, 2.0**24
"""The first factor where none is asked for, and its range: what overflows at the least one is no matter of scale."""
GROWTH_STEPS = 2000
"""Steps without an overflow after which the factor doubles."""


class LossScale:
    """factor: float32; good: int64, steps since it last changed. 0-dim, on the device."""

    def __init__(self, config: TrainConfig, device: torch.device):
        start = FIRST if config.loss_scale == 1 else config.loss_scale
        self.factor = torch.tensor(start, dtype=torch.float32, device=device)
        self.good = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, good: Tensor) -> None:
        """After a step whose gradient was finite (`good`, a bool on the device) or not."""
        count = torch.where(good, self.good + 1, 0)
        grown = count >= GROWTH_STEPS
        factor = torch.where(grown, (2 * self.factor).clamp_max(MOST), self.factor)
        self.factor.copy_(torch.where(good, factor, (self.factor / 2).clamp_min(LEAST)))
        self.good.copy_(torch.where(grown, 0, count))

    def state(self) -> dict[str, Tensor]:
        return {"factor": self.factor, "good": self.good}

    def load(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.factor.copy_(state["factor"])
        self.good.copy_(state["good"])
