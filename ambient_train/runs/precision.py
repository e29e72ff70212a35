"""Which arithmetic `auto` means: settled once, when a run begins, and kept by the run from then on.

Large networks go twice as fast in bfloat16 where the processor has it, and many times slower where it has not. So
their presets say `auto`. What it came to is part of the config that names the run: a run that is continued elsewhere
keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.settings.config import AUTO
from ambient_train.settings.layers import TrainSettings

CHOICES = ("bf16", "fp32")
"""What `auto` may come to."""


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def best_precision(device: torch.device) -> str:
    """What a new run takes on this device."""
    return "bf16" if has_bf16(device) else "fp32"


def settled(
    settings: TrainSettings, device: torch.device, begun: Callable[[TrainSettings], bool] = lambda settings: False
) -> TrainSettings:
    """The settings with `auto` replaced: by that of a run that has begun, if any, else by what the device has.

    begun: whether there is a run of such settings already. Other settings are returned as they are.
    """
    if settings.train.precision != AUTO:
        return settings
    best = best_precision(device)
    every = [with_precision(settings, p) for p in (best, *(p for p in CHOICES if p != best))]
    return next((s for s in every if begun(s)), every[0])


def with_precision(settings: TrainSettings, precision: str) -> TrainSettings:
    """The settings in another arithmetic."""
    return replace(settings, train=replace(settings.train, precision=precision))


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UsageError for what a device does not have."""
    if why := absent(precision, device):
        raise UsageError(f"{why}: use bf16 or fp32 on a CPU")


def absent(precision: str, device: torch.device) -> str:
    """Why a device does not have an arithmetic; empty if it does."""
    return f"precision {precision} needs a GPU" if precision in ("fp16", "tf32") and device.type == "cpu" else ""
