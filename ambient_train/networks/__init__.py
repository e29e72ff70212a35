"""Networks. `ARCHITECTURES` maps the name in a config to the raw network; `EDMPrecond` makes a denoiser of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def _lazy(module: str, name: str) -> Callable[..., nn.Module]:
    def build(**kwargs: Any) -> nn.Module:
        return getattr(importlib.import_module(f"ambient_train.networks.{module}"), name)(**kwargs)

    return build


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "SmallUNet": _lazy("small_unet", "SmallUNet"),
    "SongUNet": _lazy("song_unet", "SongUNet"),
    "DhariwalUNet": _lazy("dhariwal_unet", "DhariwalUNet"),
}
