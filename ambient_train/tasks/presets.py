"""What `ambient presets` says of each preset: what it is for, its network, for how long it trains."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ambient_train.settings.presets import PRESETS, Preset
from ambient_train.tasks.show import short

SCHEMA = "ambient.presets/1"
_WIDTH, _INDENT = 80, 12


@dataclass(frozen=True)
class PresetList:
    """Presets by name."""

    presets: Mapping[str, Preset]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "presets": {name: asdict(preset) for name, preset in self.presets.items()}}

    def show(self) -> None:
        for name, preset in self.presets.items():
            print(f"{name:{_INDENT}}{preset.purpose}")
            print(textwrap.indent("\n".join(textwrap.wrap(_details(preset), _WIDTH - _INDENT)), " " * _INDENT))
        print("all settings of one: ambient config show NAME")


def list_presets() -> PresetList:
    """Every preset."""
    return PresetList(PRESETS)


def _details(preset: Preset) -> str:
    channels, side, _ = preset.shape
    network, sampler = preset.train["network"], preset.sampler
    levels = ", ".join(str(m) for m in network["channel_mult"])
    return (
        f"{preset.train['arch']} {network['model_channels']} x [{levels}], {short(preset.parameters)} parameters for "
        f"{channels} x {side} x {side}; trains on {short(preset.duration_nimg)} images in batches of "
        f"{preset.train['batch']}; scores {short(preset.n_eval)} images of {sampler['steps']} steps"
    )
