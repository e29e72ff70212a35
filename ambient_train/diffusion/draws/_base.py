"""What a draw is. Nothing here imports torch: what a member says of itself can be read before torch is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ambient_train.diffusion.noise_levels import DrawInputs


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A member of the table. Called with `DrawInputs`, gives positions [B] int64 and diffusion levels [B] float64."""

    pair: Callable[[DrawInputs], tuple[Tensor, Tensor]]
    """The rule itself; it owns no randomness."""
    reaches_lowest_level: bool = False
    """Whether an image can be drawn exactly at its lowest level, where a loss may be infinite."""
    ramps: bool = False
    """Whether it depends on `DrawInputs.epochs`."""

    def __call__(self, inputs: DrawInputs) -> tuple[Tensor, Tensor]:
        return self.pair(inputs)
