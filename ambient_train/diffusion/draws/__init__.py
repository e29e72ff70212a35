"""Which diffusion level meets which training image (`--draw`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.diffusion.draws._base import Draw

TABLE: Registry[Draw] = Registry("ambient_train.diffusion.draws", "draw")
