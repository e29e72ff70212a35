"""The names of the ways to pool noise levels; `moments` says what each does. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal, get_args

Weights = Literal["gls", "order", "sigma", "none"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
