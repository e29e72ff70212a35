"""How much the squared error of a noisy image counts (`--weight`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.diffusion.losses._base import Loss

TABLE: Registry[Loss] = Registry("ambient_train.diffusion.losses", "weight")
