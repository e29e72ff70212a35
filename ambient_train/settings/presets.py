"""Named starting points: settings of a training and of its sampler, a duration, the size of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ambient_theory.shared.errors import UsageError
from ambient_train.settings.edm_presets import EDM_PRESETS


@dataclass(frozen=True, kw_only=True)
class Preset:
    """purpose: what it is for, in a line. train: by the keys of `TrainConfig`; sampler: by those of `SamplerConfig`;
    duration in images. n_eval: images generated for a score, so few that all scores take about a tenth of the time of a
    training of that duration (`runs.scoring_work`). shape: (C, H, W) of the images that it is made for. parameters: of
    its network on such images.
    """

    purpose: str
    shape: tuple[int, int, int]
    parameters: int
    train: Mapping[str, Any]
    sampler: Mapping[str, Any] = field(default_factory=dict)
    duration_nimg: int = 200_000
    n_eval: int = 2_000


_SMALL: dict[str, Any] = {
    "arch": "SmallUNet",
    "precision": "fp32",
    "optimizer": "muon",
    "muon_lr": 1e-2,
    "batch": 64,
    "ema_ramp": 0.05,
    "dropout": 0.1,
}
"""Chosen by the screens of docs/methods.md. fp32: on processors without bfloat16 arithmetic bf16 takes ten times as
long, on those with it a third less."""
_TRAIN_8X8: dict[str, Any] = {
    **_SMALL,
    "network": {"model_channels": 32, "channel_mult": [1, 2]},
    "ema_halflife_nimg": 100_000,
}
_SAMPLER_8X8 = {"steps": 12, "sigma_min": 0.01, "sigma_max": 20.0}

PRESETS: dict[str, Preset] = {
    "digits": Preset(
        purpose="first trials: the embedded 8x8 digits, minutes on a CPU",
        shape=(1, 8, 8),
        parameters=397_569,
        train=_TRAIN_8X8,
        sampler=_SAMPLER_8X8,
        duration_nimg=65_536,
        n_eval=500,
    ),
    "fashion": Preset(
        purpose="experiments: Fashion-MNIST at 8x8, minutes on a CPU",
        shape=(1, 8, 8),
        parameters=397_569,
        train={**_TRAIN_8X8, "resolution": 8},
        sampler=_SAMPLER_8X8,
        duration_nimg=200_000,
        n_eval=1_000,
    ),
    "small": Preset(
        purpose="your own images at 16 to 32 pixels: hours on a CPU (the default)",
        shape=(3, 32, 32),
        parameters=1_041_475,
        train={
            **_SMALL,
            "network": {"model_channels": 32, "channel_mult": [1, 2, 2], "num_blocks": 2},
        },
        sampler={"steps": 18},
        duration_nimg=1_000_000,
        n_eval=2_000,
    ),
    **{name: Preset(**settings) for name, settings in EDM_PRESETS.items()},
}


def default_preset(data: str) -> str:
    """The preset used when none is named: that of a built-in data set, else `small`."""
    return data if data in PRESETS else "small"


def get_preset(name: str) -> Preset:
    """Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"preset {name!r} is unknown: choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
